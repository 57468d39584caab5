#!/usr/bin/env python3
"""Takes fresh values of one device over all five dialects, as a client on the network would.

    pentad url all --client ID --host HOST:PORT | reach.py PRODUCT DEVICE PROPERTY [SECONDS [NODE]]

Each dialect's address comes from the standard input. A dialect is reached when two different values of the property have
come through it. Prints a line for each; fails if one was not reached within the seconds (default 20). NODE is what WCS OAM
calls the bus or broker, counted from 1 (default 1). Dialects that the input has no address for are left out.

Where the environment has NOT_BEFORE (epoch seconds), a text with an earlier date in it fails the dialect as well.
Needs the package websocket-client (tests/run puts it into tests/.venv).
"""

import json
import os
import re
import sys
import time
import urllib.request

import websocket


class Line:
    """One WebSocket with a deadline for everything that is read from it."""

    def __init__(self, address, deadline):
        self.deadline = deadline
        self.socket = websocket.create_connection(address, timeout=self.left())

    def left(self):
        return max(0.1, self.deadline - time.monotonic())

    def send(self, text):
        self.socket.send(text)

    def receive(self):
        self.socket.settimeout(self.left())
        text = self.socket.recv()
        if not text:
            raise ConnectionError("closed")
        return text


def stomp(line, destination):
    line.send("CONNECT\naccept-version:1.2\nhost:gateway\n\n\0")
    line.send(f"SUBSCRIBE\nid:s\ndestination:{destination}\n\n\0")


def janus(address, deadline, what):
    # The first address is an HTTP call that returns the real one and the topic.
    with urllib.request.urlopen(address, timeout=10) as answer:
        data = json.load(answer)["data"]
    line = Line(data["websocket"], deadline)
    stomp(line, data["topic"])
    return line


def sagoo(address, deadline, what):
    line = Line(address, deadline)
    topic = f"/device/{what['product']}/{what['device']}/message/property/report"
    line.send(json.dumps({"id": "r", "type": "sub", "topic": topic}))
    return line


def ithings(address, deadline, what):
    line = Line(address, deadline)
    params = {"productID": what["product"], "deviceName": what["device"]}
    line.send(json.dumps({"type": "up.sub", "body": {"code": "devicePropertyReportV2", "params": params}}))
    return line


def oam(address, deadline, what):
    line = Line(address, deadline)
    stomp(line, f"/stream/{what['node']}/{what['device']}")
    return line


def uplus(address, deadline, what):
    line = Line(address, deadline)
    relation = {"topic": "DEV_STATUS", "keys": {"typeId": ["*"]}}
    line.send(json.dumps({"cmd": "subscribe", "data": {"subdata": [relation]}}))
    return line


DIALECTS = {"janus": janus, "sagoo": sagoo, "ithings": ithings, "oam": oam, "uplus": uplus}


def values(text, name):
    """Every number behind the property's name, however the dialect spells name and number."""
    pattern = rf'"?{re.escape(name)}\\?"\s*:\s*\\?"?(-?[0-9.]+)'
    return re.findall(pattern, text, re.IGNORECASE)


def early(text):
    """What in the text is a date before NOT_BEFORE: milliseconds, or a day with a year."""
    floor = int(os.environ.get("NOT_BEFORE", "0"))
    stamps = [stamp for stamp in re.findall(r"(?<![0-9.])[0-9]{12,13}(?![0-9.])", text) if int(stamp) < 1000 * floor]
    day = time.strftime("%Y-%m-%d", time.gmtime(floor - 86400))
    return stamps + [date for date in re.findall(r"(?<![0-9])(?:19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}", text) if floor and date < day]


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    what = {"product": sys.argv[1], "device": sys.argv[2]}
    name, seconds = sys.argv[3], float(sys.argv[4]) if len(sys.argv) > 4 else 20.0
    what["node"] = sys.argv[5] if len(sys.argv) > 5 else "1"
    addresses = {}
    for row in sys.stdin:
        words = row.split()
        if len(words) >= 3 and words[0] in DIALECTS:
            addresses.setdefault(words[0], words[-1])
    if not addresses:
        sys.exit("the standard input has no addresses")
    failed = False
    for dialect, enter in ((dialect, enter) for dialect, enter in DIALECTS.items() if dialect in addresses):
        began = time.monotonic()
        seen, heard = [], ""
        try:
            line = enter(addresses[dialect], began + seconds, what)
            while len(set(seen)) < 2:
                heard = line.receive()
                heard = heard if isinstance(heard, str) else heard.decode()
                if early(heard):
                    raise ValueError(f"dated {early(heard)}")
                seen += values(heard, name)
            print(f"{dialect:<8} {name} {' '.join(dict.fromkeys(seen))}, {time.monotonic() - began:.1f} s", flush=True)
        except Exception as error:
            failed = True
            print(f"{dialect:<8} NOT REACHED: {error!r}; values {seen}; last heard {heard!r}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
