"""An arm64 machine, emulated by QEMU: switched on and off, cables pulled, commands run in it.

The disk comes from the script `image` beside this file. Every machine starts from a fresh copy of it unless it is told
to go on with the last one. Nothing here knows pentad.
"""

import base64
import json
import os
import random
import signal
import socket
import subprocess
import time


# The same socket and serial number each time it is plugged in, as a real adapter has, so that its stable name stays.
ADAPTER = {"driver": "usb-serial", "id": "adapter", "bus": "usb.0", "port": "1", "serial": "A1", "chardev": "line"}


class Failed(Exception):
    """A command in the machine, or the machine itself, did not do what was asked."""


class Talk:
    """Lines of JSON over a unix socket: both QEMU's monitor and the agent in the machine speak so."""

    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def ask(self, command, arguments=None):
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def hear(self):
        """The next answer; events in between are passed over."""
        while True:
            line = self.file.readline()
            if not line:
                raise ConnectionError("the other side has gone")
            try:
                answer = json.loads(line.lstrip(b"\xff"))
            except ValueError:
                continue
            if "error" in answer:
                raise Failed(answer["error"].get("desc"))
            if "return" in answer:
                return answer["return"]


class Machine:
    def __init__(self, folder, forwards=(), adapter=None, processors=2, megabytes=512):
        """`forwards`: pairs of a port here and a port there. `adapter`: the unix socket behind its USB serial adapter."""
        self.folder = os.path.abspath(folder)
        self.forwards, self.adapter = forwards, adapter
        self.processors, self.megabytes = processors, megabytes
        self.qemu = None

    def path(self, name):
        return os.path.join(self.folder, name)

    def switch_on(self, again=False, clock=None):
        """Boots, and returns when the system has come up; the seconds that it took. `clock`: what its clock says then, where
        it is not what it is."""
        began = time.monotonic()
        if not again:
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.path("disk"), self.path("copy")], check=True)
        for name in ("agent", "monitor"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        network = "user,id=wire,ipv6=off" + "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in self.forwards)
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi"]
        command += ["-smp", str(self.processors), "-m", str(self.megabytes), "-nodefaults", "-display", "none"]
        command += ["-kernel", self.path("kernel"), "-initrd", self.path("initrd")]
        command += ["-append", "root=/dev/vda rw console=ttyAMA0 net.ifnames=0 panic=-1 loglevel=4"]
        command += ["-drive", f"if=none,id=disk,file={self.path('copy')},format=raw", "-device", "virtio-blk-pci,drive=disk"]
        command += ["-netdev", network, "-device", "virtio-net-pci,id=card,netdev=wire,romfile="]
        command += ["-object", "rng-random,id=noise,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=noise"]
        command += ["-serial", f"file:{self.path('console')}", "-device", "qemu-xhci,id=usb"]
        command += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self.path('agent')},server=on,wait=off"]
        command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        command += ["-qmp", f"unix:{self.path('monitor')},server=on,wait=off"]
        if clock:
            command += ["-rtc", f"base={clock}"]
        if self.adapter:
            adapter = ",".join(f"{name}={value}" for name, value in ADAPTER.items()) + ",always-plugged=on"
            command += ["-chardev", f"socket,id=line,path={self.adapter},server=on,wait=off"]
            command += ["-device", adapter]
        self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.wait_for_system()
        return time.monotonic() - began

    def wait_for_system(self, seconds=400):
        """Until systemd says that it is through with starting."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.qemu.poll() is not None:
                raise Failed(f"QEMU ended with {self.qemu.returncode}")
            try:
                state = self.run("systemctl is-system-running --wait", check=False, patience=deadline - time.monotonic())
                if state in ("running", "degraded"):
                    return
            except (OSError, Failed):
                pass
            time.sleep(0.5)
        raise Failed("the machine did not come up; see " + self.path("console"))

    def cut_power(self):
        """As if somebody pulled the plug: what was not flushed is lost."""
        self.qemu.send_signal(signal.SIGKILL)
        self.qemu.wait()

    def switch_off(self):
        """A clean power-off."""
        self.agent("guest-shutdown", {"mode": "powerdown"}, answered=False)
        self.qemu.wait(120)

    def gone(self):
        if self.qemu and self.qemu.poll() is None:
            self.cut_power()

    def agent(self, command, arguments=None, timeout=30, answered=True):
        with Talk(self.path("agent"), timeout) as talk:
            # What an earlier conversation left behind, and the complaint about the byte that ends it, is passed over
            # until our own number comes back.
            number = random.randrange(1 << 30)
            talk.socket.sendall(b"\xff")
            talk.ask("guest-sync-delimited", {"id": number})
            synchronised = False
            while not synchronised:
                try:
                    synchronised = talk.hear() == number
                except Failed:
                    continue
            talk.ask(command, arguments)
            return talk.hear() if answered else None

    def monitor(self, command, arguments=None):
        with Talk(self.path("monitor"), 60) as talk:
            talk.file.readline()
            talk.ask("qmp_capabilities")
            talk.hear()
            talk.ask(command, arguments)
            return talk.hear()

    def run(self, command, check=True, patience=120, shell="/bin/sh"):
        """Runs a shell command in the machine; what it printed, without the last line's end."""
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"]
        request = {"path": shell, "arg": ["-c", command], "env": environment, "capture-output": True}
        pid = self.agent("guest-exec", request)["pid"]
        deadline = time.monotonic() + patience
        while not (status := self.agent("guest-exec-status", {"pid": pid}))["exited"]:
            if time.monotonic() > deadline:
                raise Failed(f"{command}: still running after {patience} s")
            time.sleep(0.1)
        printed = "".join(base64.b64decode(status.get(part, "")).decode() for part in ("out-data", "err-data")).rstrip("\n")
        if check and status.get("exitcode") != 0:
            raise Failed(f"{command}: exit code {status.get('exitcode')}\n{printed}")
        return printed

    def put(self, data, place, mode="0644"):
        handle = self.agent("guest-file-open", {"path": place, "mode": "w"})
        for at in range(0, len(data), 1 << 20):
            piece = base64.b64encode(data[at:at + (1 << 20)]).decode()
            self.agent("guest-file-write", {"handle": handle, "buf-b64": piece}, timeout=120)
        self.agent("guest-file-close", {"handle": handle})
        self.run(f"chmod {mode} {place}")

    def get(self, place):
        handle = self.agent("guest-file-open", {"path": place, "mode": "r"})
        data = b""
        while True:
            piece = self.agent("guest-file-read", {"handle": handle, "count": 1 << 20}, timeout=120)
            data += base64.b64decode(piece["buf-b64"])
            if piece["eof"]:
                break
        self.agent("guest-file-close", {"handle": handle})
        return data

    def unplug(self):
        self.monitor("device_del", {"id": "adapter"})

    def plug_in(self):
        self.monitor("device_add", ADAPTER | {"always-plugged": True})

    def cable(self, there):
        self.monitor("set_link", {"name": "card", "up": there})
