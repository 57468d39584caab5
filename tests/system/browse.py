#!/usr/bin/env python3
"""Looks for gateways on the local network as another host does, with the library zeroconf.

    browse.py ADDRESS SECONDS

ADDRESS is this host's own on the network to look at. Prints a line of JSON for each gateway that comes (name, addresses,
port, text) and one for each that says goodbye, until the seconds are over or its standard input is closed.
"""

import json
import sys
import threading

from zeroconf import ServiceBrowser, ServiceStateChange, Zeroconf

KIND = "_pentad._tcp.local."


def main():
    address, seconds = sys.argv[1], float(sys.argv[2])
    zeroconf = Zeroconf(interfaces=[address])
    over = threading.Event()

    def changed(zeroconf, service_type, name, state_change):
        if state_change is ServiceStateChange.Removed:
            print(json.dumps({"gone": name}), flush=True)
            return
        info = zeroconf.get_service_info(service_type, name, 5000)
        if info is not None:
            text = {key.decode(): value.decode() for key, value in info.properties.items() if value is not None}
            found = {"name": name, "addresses": info.parsed_addresses(), "port": info.port, "host": info.server, "text": text}
            print(json.dumps(found), flush=True)

    def until_closed():
        sys.stdin.read()
        over.set()

    ServiceBrowser(zeroconf, KIND, handlers=[changed])
    threading.Thread(target=until_closed, daemon=True).start()
    over.wait(seconds)
    zeroconf.close()


if __name__ == "__main__":
    main()
