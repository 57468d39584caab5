#!/usr/bin/env python3
"""Reads a page of metrics with the parser of Prometheus's own Python library, and prints what that has understood.

Standard input: the page, in the text form 0.0.4. Standard output: JSON, one object for each family: its name, type and help, and
its samples with name, labels and value.
"""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = [
    {
        "name": family.name,
        "type": family.type,
        "help": family.documentation,
        "samples": [{"name": sample.name, "labels": sample.labels, "value": sample.value} for sample in family.samples],
    }
    for family in text_string_to_metric_families(sys.stdin.read())
]
json.dump(families, sys.stdout)
