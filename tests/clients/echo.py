"""Python's websockets talks to wsecho: text, binary, 1 MiB, fragments, ping and close.

usage: echo.py URL [--ca FILE] [--idle SECONDS]
"""

import argparse
import asyncio
import ssl

import websockets

PREFIX = "You have entered: "


async def converse(ws, idle):
    for text in ["hi", "", "Grüße, 日本, 🚀", "x" * 200_000, "0123456789abcdef" * 65_536]:
        await ws.send(text)
        assert await ws.recv() == PREFIX + text

    for data in [b"", bytes(range(256)), bytes(range(256)) * 4096]:
        await ws.send(data)
        assert await ws.recv() == data

    await ws.send(["a message ", "in three ", "fragments"])
    assert await ws.recv() == PREFIX + "a message in three fragments"
    await ws.send([b"\x00", b"\xff"])
    assert await ws.recv() == b"\x00\xff"

    pong = await ws.ping(b"are you there?")
    await pong

    if idle:
        await asyncio.sleep(idle)
        await ws.send("after a pause")
        assert await ws.recv() == PREFIX + "after a pause"

    await ws.close(4000, "done")
    assert (ws.close_code, ws.close_reason) == (4000, ""), (ws.close_code, ws.close_reason)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--ca", help="the certificate to trust")
    parser.add_argument("--idle", type=float, default=0, help="seconds to say nothing for")
    args = parser.parse_args()

    options = {"ssl": ssl.create_default_context(cafile=args.ca)} if args.ca else {}
    # Pings of its own would hide whether the server's keep the connection open. The largest reply is
    # 1 MiB and the prefix.
    async with websockets.connect(args.url, ping_interval=None, max_size=2 << 20, **options) as ws:
        assert [extension.name for extension in ws.protocol.extensions] == ["permessage-deflate"]
        await converse(ws, args.idle)
    print("ok")


asyncio.run(asyncio.wait_for(main(), timeout=60))
