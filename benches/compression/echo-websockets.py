"""An echo server on Python's websockets, with the window and the memory level of its defaults.

usage: echo-websockets.py PORT context-takeover|no-context-takeover LEVEL
"""

import asyncio
import sys

from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory


async def echo(client):
    async for message in client:
        await client.send(message)


async def main():
    port, mode, level = sys.argv[1:]
    stateless = mode == "no-context-takeover"
    deflate = ServerPerMessageDeflateFactory(
        server_no_context_takeover=stateless,
        client_no_context_takeover=stateless,
        server_max_window_bits=12,
        client_max_window_bits=12,
        compress_settings={"memLevel": 5, "level": int(level)},
    )
    async with serve(echo, "127.0.0.1", int(port), compression=None, extensions=[deflate]) as server:
        await server.serve_forever()


asyncio.run(main())
