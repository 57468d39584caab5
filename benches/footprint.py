"""What a gateway costs: start, memory, processor time, memory per client, latency from broker to client, and what a broker
takes for the same.

    tests/run                      # once, for the Python environment and mosquitto
    cargo build --release
    tests/.venv/bin/python benches/footprint.py

Fifty Modbus devices of five properties each, polled every second from pymodbus over TCP; idle SagooIoT clients; then
clients that take everything while an MQTT device publishes, first one message at a time, then ten on each other's heels ten
times a second, and these again with `flush_interval = "5ms"`; each time as many WebSocket clients of mosquitto take the same
messages. Where messages come one by one with pauses, there is nothing for that interval to gather, so it is measured by the
bursts alone. It prints figures and judges none: they belong beside the budgets of the design, on the machine where they were
taken. On a machine with other work, `chrt -f 1` before the command keeps that out of the latencies. Processor time is what
the kernel's scheduler counts for all threads, in nanoseconds.
"""

import asyncio
import base64
import json
import logging
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import StartAsyncTcpServer

BINARY = os.environ.get("PENTAD", "target/release/pentad")
DEVICES, IDLE, TAKERS, RATE, SECONDS, BURST = 50, 500, 100, 100, 10, 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(port, slave, broker, more=""):
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
{more}
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
    used = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as stat:
            used += int(stat.read().split()[0])
    return used / 1e9


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


def upgrade(port, path, *headers):
    line = socket.create_connection(("127.0.0.1", port))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    head = [f"GET {path} HTTP/1.1", "host: x", "connection: Upgrade", "upgrade: websocket",
            "sec-websocket-version: 13", f"sec-websocket-key: {key}", *headers]
    line.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += line.recv(1024)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return line


def say(line, opcode, data):
    """One masked frame with an all-zero mask."""
    assert len(data) < 126
    line.sendall(bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data)


def of_pentad(port, number):
    line = upgrade(port, "/messaging/bench-secret")
    say(line, 1, b'{"id":"1","type":"sub","topic":"/device/*/*/**"}')
    return line


def of_mosquitto(port, number):
    line = upgrade(port, "/mqtt", "sec-websocket-protocol: mqtt")
    name = f"taker-{number}".encode()
    say(line, 2, bytes([0x10, 12 + len(name), 0, 4]) + b"MQTT" + bytes([4, 2, 0, 60, 0, len(name)]) + name)
    line.recv(64)
    topic = b"clock-1/tick"
    say(line, 2, bytes([0x82, 5 + len(topic), 0, 1, 0, len(topic)]) + topic + b"\0")
    line.recv(64)
    return line


def take(kind, port):
    """A process of its own: clients that note when something comes, and read it afterwards. Prints "ready"; when its standard
    input is closed, the figures."""
    lines = [(of_pentad if kind == "pentad" else of_mosquitto)(port, number) for number in range(TAKERS)]
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    at = {line.fileno(): line for line in lines}
    for descriptor in at:
        poll.register(descriptor, select.EPOLLIN)
    print("ready", flush=True)
    came, over = [], False
    while not over:
        for descriptor, _ in poll.poll():
            if descriptor in at:
                data = at[descriptor].recv(65536)
                came.append((time.monotonic_ns(), data))
            else:
                over = True
    latencies, messages = [], 0
    for now, data in came:
        # In pentad's JSON the number stands behind its name, in MQTT at the end of the message.
        pieces = data.split(b'"tick":' if kind == "pentad" else b"clock-1/tick")[1:]
        messages += len(pieces)
        for piece in pieces:
            digits = bytes(piece[:24]).split(b",", 1)[0].split(b"}", 1)[0]
            digits = digits[: next((n for n, each in enumerate(digits) if not 48 <= each <= 57), len(digits))]
            latencies.append((now - int(digits)) / 1e6)
    latencies.sort()
    figures = {"count": messages, "p50": statistics.median(latencies), "p99": latencies[len(latencies) * 99 // 100]}
    print(json.dumps(figures), flush=True)


async def fan_out(kind, port, broker, pid, burst=1):
    """Publishes to clients of one kind; their figures, and the processor time of the process that served them."""
    taker = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "take", kind, str(port), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    await taker.stdout.readline()
    await asyncio.sleep(1)
    before = cpu_seconds(pid)
    await publish(broker, burst)
    await asyncio.sleep(1)
    used = cpu_seconds(pid) - before
    taker.stdin.close()
    figures = json.loads(await taker.stdout.readline())
    await taker.wait()
    pace = f"{RATE}/s" if burst == 1 else f"{burst} at once"
    print(f"{kind} to {TAKERS} clients, {pace}".ljust(38) + f"p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.2f} ms, "
          f"{figures['count']} deliveries, {1e6 * used / figures['count']:.1f} us of processor each")
    return used / figures["count"]


async def publish(broker, burst):
    """Publishes the monotonic clock, QoS 0, over a bare MQTT 3.1.1 connection, so many times on each other's heels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker)
    writer.write(bytes([0x10, 17, 0, 4]) + b"MQTT" + bytes([4, 2, 0, 60, 0, 5]) + b"bench")
    await reader.readexactly(4)
    topic = b"clock-1/tick"
    for number in range(RATE * SECONDS):
        payload = str(time.monotonic_ns()).encode()
        rest = len(topic).to_bytes(2, "big") + topic + payload
        writer.write(bytes([0x30, len(rest)]) + rest)
        if number % burst == burst - 1:
            await asyncio.sleep(burst / RATE)


async def main():
    slave, broker, port, broker_web = free_port(), free_port(), free_port(), free_port()
    block = lambda: ModbusSequentialDataBlock(1, [0x4366, 0x8000] * 50)
    units = {unit: ModbusDeviceContext(ir=block()) for unit in range(1, DEVICES + 1)}
    context = ModbusServerContext(devices=units, single=False)
    serving = asyncio.create_task(StartAsyncTcpServer(context, address=("127.0.0.1", slave)))
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/mosquitto.conf", "w") as file:
            file.write(f"listener {broker} 127.0.0.1\nlistener {broker_web} 127.0.0.1\nprotocol websockets\n")
            file.write("allow_anonymous true\n")
        mosquitto = subprocess.Popen(["/usr/sbin/mosquitto", "-c", f"{folder}/mosquitto.conf"], stderr=subprocess.DEVNULL)
        with open(f"{folder}/pentad.toml", "w") as file:
            file.write(configuration(port, slave, broker))
        with open(f"{folder}/clients.toml", "w") as file:
            file.write('[[client]]\nid = "bench"\nsecret = "bench-secret"\n')
        os.chmod(f"{folder}/clients.toml", 0o640)
        # As systemd is told.
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(f"{folder}/notices")
        notices.settimeout(30)
        environment = os.environ | {"NOTIFY_SOCKET": f"{folder}/notices"}
        begun = time.monotonic()
        command = [BINARY, "run", "--config", f"{folder}/pentad.toml"]
        pentad = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        try:
            while b"READY=1" not in notices.recv(4096):
                pass
            print(f"start to ready                 {1000 * (time.monotonic() - begun):8.0f} ms")
            # Its status lines would fill the socket, and it would be slower for it.
            notices.close()
            os.unlink(f"{folder}/notices")
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
            own = await fan_out("pentad", port, broker, pentad.pid)
            others = await fan_out("mosquitto", broker_web, broker, mosquitto.pid)
            print(f"processor, of what mosquitto takes {own / others:6.2f}")
            own = await fan_out("pentad", port, broker, pentad.pid, BURST)
            others = await fan_out("mosquitto", broker_web, broker, mosquitto.pid, BURST)
            print(f"processor, of what mosquitto takes {own / others:6.2f}")
            with open(f"{folder}/pentad.toml", "w") as file:
                file.write(configuration(port, slave, broker, 'flush_interval = "5ms"'))
            pentad.send_signal(signal.SIGHUP)
            await asyncio.sleep(2)
            print("with flush_interval = \"5ms\":")
            own = await fan_out("pentad", port, broker, pentad.pid, BURST)
            print(f"processor, of what mosquitto takes {own / others:6.2f}")
            print(f"memory after all that          {memory(pentad.pid) / 1024:8.1f} MiB")
        finally:
            pentad.terminate()
            pentad.wait(15)
            mosquitto.terminate()
            serving.cancel()


if __name__ == "__main__":
    if sys.argv[1:2] == ["take"]:
        take(sys.argv[2], int(sys.argv[3]))
        sys.exit()
    if not os.path.exists(BINARY):
        sys.exit(f"{BINARY} is missing; build it with cargo build --release")
    logging.disable()
    asyncio.run(main())
