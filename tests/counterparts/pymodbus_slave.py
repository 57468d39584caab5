"""An independent Modbus unit for the tests, made with pymodbus.

    pymodbus_slave.py ascii|rtu PATH        on a serial line of 115200 baud, 8N1
    pymodbus_slave.py tcp|rtu PORT          on 127.0.0.1: Modbus TCP, or RTU frames in a TCP stream

It is unit 1. Holding register 10 holds 4711, input register 10 holds 815; there are 500 places in each table. It prints
"ready" when it can be asked, and runs until it is killed.
"""

import asyncio
import sys

from pymodbus import FramerType
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer, ModbusTcpServer

FRAMERS = {"ascii": FramerType.ASCII, "rtu": FramerType.RTU, "tcp": FramerType.SOCKET}


async def main(framing, where):
    block = lambda value: ModbusSequentialDataBlock(1, [0] * 10 + [value] + [0] * 489)
    unit = ModbusDeviceContext(di=block(0), co=block(0), ir=block(815), hr=block(4711))
    context = ModbusServerContext(devices={1: unit}, single=False)
    if where.startswith("/"):
        server = ModbusSerialServer(
            context, framer=FRAMERS[framing], port=where, baudrate=115200, ignore_missing_devices=True
        )
    else:
        server = ModbusTcpServer(
            context, framer=FRAMERS[framing], address=("127.0.0.1", int(where)), ignore_missing_devices=True
        )
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    print("ready", flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
