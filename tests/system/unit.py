#!/usr/bin/env python3
"""A Modbus RTU unit at the far end of a serial line, with nothing but Python's own library.

    unit.py pty LINK        makes a pseudo-terminal and a symbolic link to its near end
    unit.py unix:PATH       connects to a socket that an emulator listens on, again whenever it is gone

Unit 1. Input registers 0 to 9 count the requests that were answered, so that a reader can tell fresh values from kept
ones; holding registers 0 to 9 keep what is written. Anything else is refused with exception 2. Ends with its standard
input's owner: stop it by a signal.
"""

import errno
import fcntl
import os
import pty
import select
import socket
import struct
import sys
import termios
import time
import tty

UNIT, REGISTERS, GAP = 1, 10, 0.02


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


class Unit:
    def __init__(self):
        self.holding = [0] * REGISTERS
        self.answered = 0

    def answer(self, frame):
        """The answer to one whole frame; None where a real unit stays silent."""
        if len(frame) < 8 or frame[0] != UNIT or crc(frame[:-2]) != frame[-2:]:
            return None
        function, address, value = struct.unpack(">BHH", frame[1:6])
        body = self.body(function, address, value, frame[6:-2])
        if body is None:
            body = bytes([function | 0x80, 2])
        else:
            self.answered += 1
        reply = bytes([UNIT]) + body
        return reply + crc(reply)

    def body(self, function, address, value, rest):
        if function in (3, 4) and 0 < value and address + value <= REGISTERS:
            numbers = self.holding if function == 3 else [self.answered & 0xFFFF] * REGISTERS
            chosen = numbers[address:address + value]
            return struct.pack(f">BB{value}H", function, 2 * value, *chosen)
        if function == 6 and address < REGISTERS:
            self.holding[address] = value
            return struct.pack(">BHH", function, address, value)
        if function == 16 and address + value <= REGISTERS and len(rest) == 1 + 2 * value:
            self.holding[address:address + value] = struct.unpack(f">{value}H", rest[1:])
            return struct.pack(">BHH", function, address, value)
        return None


def release(name):
    """Ends the exclusive use that a killed reader leaves behind. A real port forgets it with its last holder; a pseudo-
    terminal lives on with its other end. Only root can open it then."""
    try:
        near = os.open(name, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return
    fcntl.ioctl(near, termios.TIOCNXCL)
    os.close(near)


def serve(unit, descriptor, unheld=lambda: None):
    """Answers until the line is gone. A frame ends where nothing more comes for a while."""
    frame = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], GAP if frame else None)
        if not ready:
            reply = unit.answer(frame)
            frame = b""
            if reply:
                os.write(descriptor, reply)
            continue
        try:
            data = os.read(descriptor, 256)
        except OSError as error:
            # What a pseudo-terminal says while nobody holds its other end.
            if error.errno != errno.EIO:
                raise
            unheld()
            time.sleep(0.1)
            continue
        if not data:
            return
        frame += data


def main():
    kind, _, path = (sys.argv[1] if len(sys.argv) > 1 else "").partition(":")
    unit = Unit()
    if kind == "pty":
        far, near = pty.openpty()
        tty.setraw(near)
        name = os.ttyname(near)
        os.close(near)
        link = sys.argv[2]
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(name, link)
        serve(unit, far, lambda: release(name))
    elif kind == "unix":
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as line:
                    line.connect(path)
                    serve(unit, line.fileno())
            except OSError:
                pass
            time.sleep(0.2)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
