"""What registers hold for a value, by Python's struct module: the independent side of the dumps in tests/products/modbus.

    pack.py f32 230.2              prints 4366 3333
    pack.py u32/CDAB 108           low word first
    pack.py text:16 Growatt        sixteen registers
    pack.py --check FILE ...       every line of a dump that names its value behind `#` has to hold just that
"""

import re
import struct
import sys

FORMATS = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "i64": ">q", "f32": ">f"}
LINE = re.compile(r"(?:input|holding) \S+: ([0-9A-F ]+?)\s+# ((?:[uif]\d+|text:\d+)(?:/CDAB)?) (.+)$")


def pack(kind, text):
    kind, _, order = kind.partition("/")
    name, _, registers = kind.partition(":")
    if name == "text":
        raw = text.encode().ljust(2 * int(registers), b"\0")
    else:
        number = float(text) if name == "f32" else int(text, 0)
        raw = struct.pack(FORMATS[name], number)
    words = [raw[at : at + 2].hex().upper() for at in range(0, len(raw), 2)]
    return " ".join(reversed(words) if order == "CDAB" else words)


def check(path):
    wrong = 0
    with open(path, encoding="utf-8") as dump:
        for number, line in enumerate(dump, 1):
            found = LINE.match(line.rstrip())
            if found and pack(found[2], found[3]) != found[1]:
                print(f"{path}:{number}: {found[2]} {found[3]} is {pack(found[2], found[3])}")
                wrong += 1
    return wrong


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(1 if sum(check(path) for path in sys.argv[2:]) else 0)
    print(pack(sys.argv[1], " ".join(sys.argv[2:])))
