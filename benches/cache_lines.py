#!/usr/bin/env python3
"""Counts the distinct cache lines that the server's own code touches for a message, from one wait to the next.

    benches/cache_lines.py [PART…]      parts of the binary `session`, by default `single`

Only parts with one message a read have such waits. Needs valgrind, nm and the binary (see README.md).
"""

import itertools
import pathlib
import re
import subprocess
import sys

LINE = 64
BINARY = pathlib.Path(__file__).parent / "target/release/session"
# A step of the connection, which is not inlined. A message has two: the reply, and the wait.
STEP = "wsecho::app::connection::Connection::next"
STEPS = 2
# Messages to skip, until memory stays where it is, and messages to count.
SKIP, COUNT = 200, 100
# Where valgrind loads the binary and the stack.
BASE, STACK = 0x108000, 0x1FFE000000


def steps(part):
    """The cache lines of each step, with the kind of memory they are in."""
    symbols = subprocess.run(["nm", "-nC", BINARY], capture_output=True, text=True, check=True).stdout
    address = re.compile(r"^([0-9a-f]+) . (.*)$", re.M)
    symbols = {name: BASE + int(at, 16) for at, name in address.findall(symbols)}
    entry, end = symbols[STEP], max(symbols.values())
    trace = ["valgrind", "--tool=lackey", "--trace-mem=yes", "--log-fd=1", BINARY, part]
    lines = None
    process = subprocess.Popen(trace, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in process.stdout:
            access = re.match(r"([I ])[ LSM] ([0-9a-f]+),(\d+)$", line)
            if not access:
                continue
            operation, first, size = access[1], int(access[2], 16), int(access[3])
            if operation == "I" and first == entry:
                if lines is not None:
                    yield lines
                lines = set()
            if lines is not None:
                if operation == "I":
                    kind = "code"
                else:
                    kind = "stack" if first > STACK else "static" if first < end else "heap"
                lines.update((kind, at) for at in range(first // LINE, (first + size - 1) // LINE + 1))
    finally:
        process.kill()
        process.wait()


def main():
    print("cache lines a message: mean of the distinct ones")
    for part in sys.argv[1:] or ["single"]:
        window = itertools.islice(steps(part), SKIP * STEPS, (SKIP + COUNT) * STEPS)
        messages = [set().union(*message) for message in zip(*[window] * STEPS)]
        kinds = ("heap", "stack", "static", "code")
        means = [sum(k == kind for message in messages for k, _ in message) / COUNT for kind in kinds]
        print(f"{part:8}", ", ".join(f"{kind} {mean:.1f}" for kind, mean in zip(kinds, means)))


main()
