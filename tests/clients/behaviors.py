"""What Python's websockets reports of each behavior on demand.

usage: behaviors.py URL < QUERIES

For each query, a line each, it prints the seconds that it took, a tab, and what it saw.
"""

import asyncio
import sys
import time

import websockets

PREFIX = "You have entered: "
QUIET = 1.5


def shown(message):
    return "JSON" if message.startswith("{") else message.rstrip().replace(PREFIX, "…")


async def observe(url):
    started = time.monotonic()
    try:
        # Pings of its own would end what is silent on purpose.
        ws = await websockets.connect(url, ping_interval=None, close_timeout=1)
    except Exception as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        error = type(error).__name__ + (f" {code}" if code else "")
        return time.monotonic() - started, error

    seen = []
    last = time.monotonic() - started
    try:
        for text in "abc":
            await ws.send(text)
    except websockets.ConnectionClosed:
        pass
    try:
        while True:
            seen.append(shown(await asyncio.wait_for(ws.recv(), QUIET)))
            last = time.monotonic() - started
    except TimeoutError:
        try:
            await asyncio.wait_for(await ws.ping(), QUIET)
            seen.append("open, pong")
        except TimeoutError:
            seen.append("open, no pong")
        ws.transport.abort()
    except websockets.ConnectionClosed as error:
        last = time.monotonic() - started
        reason = f" {ws.close_reason}" if error.rcvd and ws.close_reason else ""
        seen.append(f"{type(error).__name__} {ws.close_code}{reason}")
    return last, " ".join(seen)


async def main():
    queries = sys.stdin.read().splitlines()
    for took, seen in await asyncio.gather(*(observe(f"{sys.argv[1]}?{query}") for query in queries)):
        print(f"{took:.3f}\t{seen}")


asyncio.run(asyncio.wait_for(main(), timeout=60))
