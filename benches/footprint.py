"""What a gateway costs: start, memory, processor time, memory per client, latency from broker to client.

    tests/run                      # once, for the Python environment and mosquitto
    cargo build --release
    tests/.venv/bin/python benches/footprint.py

Fifty Modbus devices of five properties each, polled every second from pymodbus over TCP; idle SagooIoT clients; then
clients that take everything while an MQTT device publishes. It prints figures and judges none: they belong beside
the budgets of the design, on the machine where they were taken.
"""

import asyncio
import base64
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import StartAsyncTcpServer

BINARY = os.environ.get("PENTAD", "target/release/pentad")
DEVICES, IDLE, TAKERS, RATE, SECONDS = 50, 500, 100, 100, 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(port, slave, broker):
    names = ["voltage", "current", "power", "frequency", "energy"]
    properties = "".join(
        f'[[product.property]]\nid = "{name}"\ntype = "float"\naccess = "r"\n'
        f'modbus = {{ table = "input", address = {2 * at}, type = "f32", every = "1s" }}\n'
        for at, name in enumerate(names)
    )
    devices = "".join(
        f'[[device]]\nid = "meter-{unit}"\nproduct = "meter"\nbus = "plc"\nunit = {unit}\n'
        for unit in range(1, DEVICES + 1)
    )
    return f"""
[gateway]
id = "bench"
[server]
listen = ["127.0.0.1:{port}"]
[server.limits]
connections_per_address = 1024
[[modbus_tcp]]
id = "plc"
address = "127.0.0.1:{slave}"
[[mqtt]]
id = "local"
url = "mqtt://127.0.0.1:{broker}"
[[device]]
id = "clock-1"
product = "clock"
mqtt = "local"
topic = "clock-1"
{devices}
[[product]]
id = "meter"
{properties}
[[product]]
id = "clock"
[[product.property]]
id = "tick"
type = "int"
access = "r"
mqtt = {{ topic = "{{topic}}/tick" }}
"""


def memory(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def client(port, topic):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /messaging/bench-secret HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    text = f'{{"id":"1","type":"sub","topic":"{topic}"}}'.encode()
    # A masked text frame with an all-zero mask.
    writer.write(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
    await writer.drain()
    return reader, writer


async def read_frame(reader):
    head = await reader.readexactly(2)
    length = head[1] & 0x7F
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)


async def take(reader, latencies):
    try:
        while True:
            frame = await read_frame(reader)
            now = time.monotonic_ns()
            at = frame.find(b'"tick":')
            if at >= 0:
                digits = frame[at + 7 :].split(b",", 1)[0].split(b"}", 1)[0]
                latencies.append((now - int(digits)) / 1e6)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        return


async def publish(broker):
    """Publishes the monotonic clock, QoS 0, over a bare MQTT 3.1.1 connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker)
    writer.write(bytes([0x10, 17, 0, 4]) + b"MQTT" + bytes([4, 2, 0, 60, 0, 5]) + b"bench")
    await reader.readexactly(4)
    topic = b"clock-1/tick"
    for _ in range(RATE * SECONDS):
        payload = str(time.monotonic_ns()).encode()
        rest = len(topic).to_bytes(2, "big") + topic + payload
        writer.write(bytes([0x30, len(rest)]) + rest)
        await asyncio.sleep(1 / RATE)


async def main():
    slave, broker, port = free_port(), free_port(), free_port()
    block = lambda: ModbusSequentialDataBlock(1, [0x4366, 0x8000] * 50)
    units = {unit: ModbusDeviceContext(ir=block()) for unit in range(1, DEVICES + 1)}
    context = ModbusServerContext(devices=units, single=False)
    serving = asyncio.create_task(StartAsyncTcpServer(context, address=("127.0.0.1", slave)))
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/mosquitto.conf", "w") as file:
            file.write(f"listener {broker} 127.0.0.1\nallow_anonymous true\n")
        mosquitto = subprocess.Popen(["/usr/sbin/mosquitto", "-c", f"{folder}/mosquitto.conf"], stderr=subprocess.DEVNULL)
        with open(f"{folder}/pentad.toml", "w") as file:
            file.write(configuration(port, slave, broker))
        with open(f"{folder}/clients.toml", "w") as file:
            file.write('[[client]]\nid = "bench"\nsecret = "bench-secret"\n')
        os.chmod(f"{folder}/clients.toml", 0o640)
        begun = time.monotonic()
        pentad = subprocess.Popen([BINARY, "run", "--config", f"{folder}/pentad.toml"], stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 0.1).close()
                    break
                except OSError:
                    await asyncio.sleep(0.002)
            print(f"start to listening             {1000 * (time.monotonic() - begun):8.0f} ms")
            await asyncio.sleep(5)
            before, began = cpu_seconds(pentad.pid), time.monotonic()
            await asyncio.sleep(20)
            share = 100 * (cpu_seconds(pentad.pid) - before) / (time.monotonic() - began)
            print(f"memory, {DEVICES} devices, no client  {memory(pentad.pid) / 1024:8.1f} MiB")
            print(f"processor, {DEVICES} devices at 1 s   {share:8.2f} % of a core")
            floor = memory(pentad.pid)
            idle = [await client(port, "/device/none/none/online") for _ in range(IDLE)]
            await asyncio.sleep(3)
            print(f"memory per idle client         {(memory(pentad.pid) - floor) / IDLE:8.1f} KiB ({IDLE} clients)")
            for _, writer in idle:
                writer.close()
            await asyncio.sleep(1)
            latencies = []
            takers = [await client(port, "/device/*/*/**") for _ in range(TAKERS)]
            reading = [asyncio.create_task(take(reader, latencies)) for reader, _ in takers]
            before = cpu_seconds(pentad.pid)
            await publish(broker)
            await asyncio.sleep(1)
            used = cpu_seconds(pentad.pid) - before
            for task in reading:
                task.cancel()
            latencies.sort()
            print(f"broker to {TAKERS} clients, {RATE}/s      p50 {statistics.median(latencies):.1f} ms, "
                  f"p99 {latencies[len(latencies) * 99 // 100]:.1f} ms, {len(latencies)} deliveries "
                  f"(this script reads them in one Python loop)")
            print(f"processor per delivery         {1e6 * used / max(1, len(latencies)):8.1f} us")
            print(f"memory after all that          {memory(pentad.pid) / 1024:8.1f} MiB")
        finally:
            pentad.terminate()
            pentad.wait(15)
            mosquitto.terminate()
            serving.cancel()


if __name__ == "__main__":
    if not os.path.exists(BINARY):
        sys.exit(f"{BINARY} is missing; build it with cargo build --release")
    logging.disable()
    asyncio.run(main())
