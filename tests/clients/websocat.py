"""Stands in for websocat where that is not installed: sends each line as a text, its end included,
and prints what comes. The file `connected` tells the rest of the test that it has begun."""

import pathlib
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

try:
    client = connect(sys.argv[1], compression=None, max_size=None)
finally:
    pathlib.Path("connected").touch()

with client:

    def send():
        try:
            for line in sys.stdin:
                client.send(line)
            client.close()
        except ConnectionClosed:
            pass

    threading.Thread(target=send, daemon=True).start()
    try:
        while True:
            print(client.recv().rstrip("\n"), flush=True)
    except ConnectionClosed:
        pass
