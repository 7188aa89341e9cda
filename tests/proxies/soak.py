"""Clients that come and go through a proxy until the server stops: none may see 1006.

usage: soak.py URL --ca FILE --seconds N

Prints "stop" after N seconds, and expects that the server is stopped then.
"""

import argparse
import asyncio
import os
import random
import ssl

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

CLIENTS = 20
PREFIX = "You have entered: "

# A path, and the code with which the server closes, if it does so by itself.
PATHS = [
    ("/", None),
    ("/do?latency=20ms", None),
    ("/do?fragment=7", None),
    ("/do?drip=50ms&fragment=100", None),
    ("/do?count=5&interval=10ms", None),
    ("/do?ping=100ms", None),
    ("/do?close=4000&after=3", 4000),
    ("/do?close=4001&after=100ms", 4001),
    ("/do?close=1012&latency=10ms&after=2", 1012),
]


# Made once: a client that is busy with making them is slow to read.
MESSAGES = [os.urandom(size) for size in (0, 10, 126, 2_000, 70_000)]
MESSAGES += ["".join(random.choices("abcdefgh ä", k=len(message))) for message in MESSAGES]


async def converse(client, path, close):
    """Sends, as a rule without waiting for replies. Returns once the client has closed.

    One that is pinged reads its replies first: nginx closes at once when the server has ended its stream, and
    the reset by a pong that comes later discards what the client has not read.
    """
    for _ in range(random.randrange(30)):
        sent = random.choice(MESSAGES)
        await client.send(sent)
        if path in ("/", "/do?ping=100ms"):
            expected = sent if isinstance(sent, bytes) else PREFIX + sent
            assert await client.recv() == expected, "another reply"
        elif random.random() < 0.2:
            await asyncio.sleep(0.02)
    if close is not None:
        await client.wait_closed()
    await client.close()


async def visit(url, context, is_stopping, codes):
    path, close = random.choice(PATHS)
    try:
        client = await connect(url + path[1:], ssl=context, max_queue=None, open_timeout=60)
    except (OSError, EOFError, InvalidHandshake, TimeoutError):
        if not is_stopping.is_set():
            raise
        return
    try:
        await converse(client, path, close)
    except ConnectionClosed:
        await client.wait_closed()
    code = client.close_code
    allowed = {close or 1000} | ({1001} if is_stopping.is_set() else set())
    assert code in allowed, f"{path}: {code} {client.close_reason!r}"
    codes[code] = codes.get(code, 0) + 1


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--ca", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    context = ssl.create_default_context(cafile=args.ca)
    is_stopping, codes = asyncio.Event(), {}

    async def visits():
        while not is_stopping.is_set():
            await visit(args.url, context, is_stopping, codes)

    clients = asyncio.gather(*(visits() for _ in range(CLIENTS)))
    await asyncio.wait([clients], timeout=args.seconds)
    if not clients.done():
        is_stopping.set()
        print("stop", flush=True)
    await clients
    print(dict(sorted(codes.items())), flush=True)


asyncio.run(main())
