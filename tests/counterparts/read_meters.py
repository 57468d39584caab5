"""Reads Eastron meters behind Modbus TCP with sdm_modbus, a library for the real ones; prints what it reads as JSON.

    read_meters.py PORT MODEL ...      the first model is unit 1, the next one unit 2, ...

It needs an older pymodbus than the simulated meters, so it runs in an environment of its own (requirements-meters.txt).
"""

import json
import sys

import sdm_modbus

if __name__ == "__main__":
    readings = []
    for unit, model in enumerate(sys.argv[2:], 1):
        meter = getattr(sdm_modbus, model)(host="127.0.0.1", port=int(sys.argv[1]), unit=unit)
        readings.append(meter.read_all())
        meter.disconnect()
    print(json.dumps(readings))
