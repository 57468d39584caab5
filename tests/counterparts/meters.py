"""Simulated meters for the tests: pymodbus units behind Modbus TCP that hold the input registers of dumps.

    meters.py PORT DUMP ...        the first dump is unit 1, the next one unit 2, ...

Registers that a dump does not name are zero. A line on standard output says when it serves.
"""

import asyncio
import re
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer

READ_INPUT = 4


def meter(path):
    unit = ModbusDeviceContext(ir=ModbusSequentialDataBlock(1, [0] * 2000))
    with open(path, encoding="utf-8") as dump:
        for line in dump:
            found = re.match(r"input (\d+): ([0-9A-F ]+?)\s*(#|$)", line)
            if found:
                unit.setValues(READ_INPUT, int(found[1]), [int(word, 16) for word in found[2].split()])
    return unit


async def main(port, dumps):
    units = {number: meter(path) for number, path in enumerate(dumps, 1)}
    server = ModbusTcpServer(ModbusServerContext(devices=units, single=False), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
