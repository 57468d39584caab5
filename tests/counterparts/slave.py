"""An independent Modbus RTU line for the tests: pymodbus units behind a pseudo-terminal, with faults on demand.

pymodbus serves one end of a pair of pseudo-terminals. The other end is what the gateway opens, through a symbolic
link that can be taken away and put back like an unplugged adapter. Between the two, this script carries the bytes
and can mute a unit, answer late, or answer with rubbish.

Standard input takes one JSON command a line, standard output gives one JSON answer a line:

    {"do": "set", "unit": 2, "table": "holding", "address": 100, "values": [1, 2]}
    {"do": "get", "unit": 2, "table": "coil", "address": 3, "count": 1}
    {"do": "mute", "unit": 2}            {"do": "unmute", "unit": 2}
    {"do": "late", "unit": 2, "seconds": 0.5}      once, for the next answer
    {"do": "garble", "unit": 2}                    once, for the next answer
    {"do": "requests", "unit": 2}                  how many requests this unit was sent
    {"do": "unplug"}                     {"do": "plug"}
"""

import asyncio
import json
import os
import sys
import tty

from pymodbus import FramerType
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer

# The function code that pymodbus keeps each table under.
TABLES = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


class Line:
    """The two pseudo-terminals, the bytes between them, and what goes wrong on the way."""

    def __init__(self, link):
        self.link = link
        self.near, near_slave = os.openpty()
        tty.setraw(near_slave)
        self.server_path = os.ttyname(near_slave)
        self.near_slave = near_slave
        self.far = self.far_slave = None
        self.muted = set()
        self.late = {}
        self.garbled = set()
        self.requests = {}
        self.asked = None

    def plug(self):
        self.far, self.far_slave = os.openpty()
        tty.setraw(self.far_slave)
        os.symlink(os.ttyname(self.far_slave), self.link)
        asyncio.get_running_loop().add_reader(self.far, self.from_gateway)

    def unplug(self):
        asyncio.get_running_loop().remove_reader(self.far)
        os.unlink(self.link)
        os.close(self.far)
        os.close(self.far_slave)
        self.far = self.far_slave = None

    def start(self):
        asyncio.get_running_loop().add_reader(self.near, self.from_units)
        self.plug()

    def from_gateway(self):
        try:
            data = os.read(self.far, 512)
        except OSError:
            return
        if not data:
            return
        # The gateway writes a whole request at once, so its first byte is the unit.
        unit = data[0]
        self.requests[unit] = self.requests.get(unit, 0) + 1
        self.asked = unit
        if unit not in self.muted:
            os.write(self.near, data)

    def from_units(self):
        data = os.read(self.near, 512)
        unit = self.asked
        if unit in self.garbled:
            self.garbled.discard(unit)
            data = bytes(byte ^ 0x55 for byte in data)
        wait = self.late.pop(unit, 0)
        if wait:
            asyncio.get_running_loop().call_later(wait, self.answer, data)
        else:
            self.answer(data)

    def answer(self, data):
        if self.far is not None:
            os.write(self.far, data)


async def main(link, units):
    blocks = {
        unit: ModbusDeviceContext(**{name: ModbusSequentialDataBlock(1, [0] * 1000) for name in ("di", "co", "ir", "hr")})
        for unit in units
    }
    context = ModbusServerContext(devices=blocks, single=False)
    line = Line(link)
    server = ModbusSerialServer(
        context, framer=FramerType.RTU, port=line.server_path, baudrate=115200, ignore_missing_devices=True
    )
    serving = asyncio.create_task(server.serve_forever())
    line.start()

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": link}), flush=True)
    while raw := await reader.readline():
        print(json.dumps(obey(json.loads(raw), blocks, line)), flush=True)
    serving.cancel()


def obey(command, blocks, line):
    unit = command.get("unit")
    match command["do"]:
        case "set":
            blocks[unit].setValues(TABLES[command["table"]], command["address"], command["values"])
        case "get":
            values = blocks[unit].getValues(TABLES[command["table"]], command["address"], command.get("count", 1))
            return {"values": [int(value) for value in values]}
        case "mute":
            line.muted.add(unit)
        case "unmute":
            line.muted.discard(unit)
        case "late":
            line.late[unit] = command["seconds"]
        case "garble":
            line.garbled.add(unit)
        case "requests":
            return {"requests": line.requests.get(unit, 0)}
        case "unplug":
            line.unplug()
        case "plug":
            line.plug()
        case other:
            return {"error": f"unknown command {other}"}
    return {"ok": True}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(unit) for unit in sys.argv[2].split(",")]))
