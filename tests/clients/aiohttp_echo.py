"""aiohttp talks to wsecho: text, binary, 1 MiB, ping and close.

usage: aiohttp_echo.py URL
"""

import asyncio
import sys

import aiohttp

PREFIX = "You have entered: "


async def main():
    async with aiohttp.ClientSession() as session:
        # The largest reply is 1 MiB and the prefix.
        async with session.ws_connect(sys.argv[1], compress=15, max_msg_size=2 << 20) as ws:
            assert ws.compress == 15, ws.compress

            for text in ["hi", "", "Grüße, 日本, 🚀", "x" * 200_000, "0123456789abcdef" * 65_536]:
                await ws.send_str(text)
                assert await ws.receive_str() == PREFIX + text

            for data in [b"", bytes(range(256)), bytes(range(256)) * 4096]:
                await ws.send_bytes(data)
                assert await ws.receive_bytes() == data

            # Pongs are shown only to who answers pings, too.
            await ws.ping(b"are you there?")
            await ws.send_str("after a ping")
            assert await ws.receive_str() == PREFIX + "after a ping"

            await ws.close(code=4000, message=b"done")
            assert ws.close_code == 4000, ws.close_code
    print("ok")


asyncio.run(asyncio.wait_for(main(), timeout=60))
