"""What a proxy in front of wsecho does to a WebSocket: a line of JSON with a cell for each column of docs/proxies.md.

usage: measure.py URL [--ca FILE] [--only NAME] [--count N] [--idle SECONDS]

wsecho has to run with --origin https://page.example.
"""

import argparse
import base64
import json
import os
import re
import socket
import ssl
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

PREFIX = b"You have entered: "
ORIGIN = "https://page.example"
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A


class Refused(Exception):
    """A status that is not 101."""

    def __init__(self, status, headers, body):
        super().__init__(status)
        self.status, self.headers, self.body = status, headers, body


class Ended(Exception):
    """The end of the stream, or a reset."""


class Client:
    def __init__(self, url, ca, alpn=("http/1.1",)):
        url = urlsplit(url)
        self.host = url.netloc
        self.socket = socket.create_connection((url.hostname, url.port), timeout=90)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "wss":
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(alpn)
            self.socket = context.wrap_socket(self.socket, server_hostname=url.hostname)
        self.buffer = b""

    def open(self, path, headers=()):
        """Opens a WebSocket, and returns the headers of the 101."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {self.host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self.buffer:
            self.receive()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        status_line, *fields = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, value in (field.split(":", 1) for field in fields)}
        status = int(status_line.split()[1])
        if status != 101:
            while not self.has_body(fields):
                self.receive()
            raise Refused(status, fields, self.buffer)
        return fields

    def has_body(self, fields):
        """Whether the body of a refusal has come, which the proxy may send in chunks."""
        if "content-length" in fields:
            return len(self.buffer) >= int(fields["content-length"])
        return self.buffer.endswith(b"0\r\n\r\n")

    def receive(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionError as error:
            raise Ended("reset") from error
        except ssl.SSLError as error:
            raise Ended("FIN without close_notify") from error
        if not data:
            raise Ended("FIN")
        self.buffer += data
        return data

    def send(self, first, payload):
        key = os.urandom(4)
        length = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
        masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(bytes([first]) + length + key + masked)

    def frame(self):
        """The next frame: its first byte and its payload."""
        while (frame := self.buffered_frame()) is None:
            self.receive()
        return frame

    def buffered_frame(self):
        if len(self.buffer) < 2:
            return None
        length, start = self.buffer[1], 2
        if length == 126:
            if len(self.buffer) < 4:
                return None
            length, start = struct.unpack("!H", self.buffer[2:4])[0], 4
        if len(self.buffer) < start + length:
            return None
        first, payload = self.buffer[0], self.buffer[start : start + length]
        self.buffer = self.buffer[start + length :]
        return first, payload


def measure_ping(client):
    """Whether pings and pongs pass in both directions."""
    one = client()
    one.open("/do?ping=100ms")
    if one.frame() != (PING, b""):
        return "the server's ping is lost"
    two = client()
    two.open("/do?pong=off")
    two.send(PING, b"?")
    two.send(TEXT, b"!")
    if two.frame()[0] == PONG:
        return "answered by the proxy"
    three = client()
    three.open("/")
    three.send(PING, b"?")
    return "passed" if three.frame() == (PONG, b"?") else "lost"


def measure_compression(client):
    one = client()
    headers = one.open("/do?prefix=", [("Sec-WebSocket-Extensions", "permessage-deflate")])
    if "permessage-deflate" not in headers.get("sec-websocket-extensions", ""):
        return "stripped"
    # "Hello", from RFC 7692 §7.2.3.1.
    one.send(0xC1, bytes.fromhex("f248cdc9c90700"))
    first, _ = one.frame()
    return "passed" if first == 0xC1 else f"frame {first:02x}"


def measure_subprotocol(client):
    headers = client().open("/", [("Sec-WebSocket-Protocol", "chat, superchat")])
    return "passed" if headers.get("sec-websocket-protocol") == "chat" else "stripped"


def measure_close(client):
    """Code and reason, from the server and from the client."""
    one = client()
    one.open("/do?close=4000&reason=bye&after=1")
    one.send(TEXT, b"!")
    assert one.frame() == (TEXT, PREFIX + b"!")
    from_server = one.frame() == (CLOSE, struct.pack("!H", 4000) + b"bye")
    two = client()
    two.open("/")
    two.send(CLOSE, struct.pack("!H", 4001) + b"bye")
    from_client = two.frame() == (CLOSE, struct.pack("!H", 4001))
    return "passed" if from_server and from_client else "lost"


def measure_close_while_sending(client, count):
    """How many clients that send all the time see the server's close code."""
    with ThreadPoolExecutor(10) as clients:
        seen = sum(clients.map(lambda _: sees_close(client()), range(count)))
    return f"{seen} of {count}"


def sees_close(one):
    """Whether the close code is there for a client that is late to read, since it sends."""
    one.open("/do?close=4000&after=1")
    try:
        for _ in range(50):
            one.send(TEXT, b"x" * 100)
            time.sleep(0.001)
        while True:
            first, payload = one.frame()
            if first == CLOSE:
                one.send(CLOSE, payload)
                return payload == struct.pack("!H", 4000)
    except (Ended, OSError):
        return False


def measure_end(client, close):
    one = client()
    one.open(f"/do?close={close}&after=1")
    one.send(TEXT, b"!")
    try:
        while True:
            first, _ = one.frame()
            if first != TEXT:
                return f"frame {first:02x}"
    except Ended as end:
        return str(end)


def measure_status(client):
    """A refusal with its header and body."""
    changed = []
    for status, header in [(503, "retry-after"), (401, "www-authenticate")]:
        try:
            client().open(f"/do?status={status}")
            changed.append(f"{status} becomes 101")
        except Refused as refused:
            if refused.status != status:
                changed.append(f"{status} becomes {refused.status}")
            elif header not in refused.headers or b"this status was asked for" not in refused.body:
                changed.append(f"{status} without its {'body' if header in refused.headers else 'header'}")
    return ", ".join(changed) or "passed"


def measure_redirect(client):
    try:
        client().open("/do?status=302")
    except Refused as refused:
        location = refused.headers.get("location")
        return "passed" if (refused.status, location) == (302, "/") else f"{refused.status}, Location {location}"


def measure_drip(client):
    """Whether the pieces of a reply come as they are sent."""
    one = client()
    one.open("/do?drip=1s")
    one.send(TEXT, b"x" * 100)
    one.receive()
    began = time.monotonic()
    one.frame()
    return "passed" if time.monotonic() - began > 0.5 else "held back"


def measure_delay(client):
    began = time.monotonic()
    try:
        client().open("/do?delay=30s")
        return "101"
    except Refused as refused:
        return f"{refused.status} after {time.monotonic() - began:.0f} s"


def measure_headers(client):
    """A head of almost 16 KiB."""
    names = [f"X-Large-{number}" for number in range(15)]
    try:
        client().open("/", [(name, "x" * 1000) for name in names])
        return "101"
    except Refused as refused:
        return str(refused.status)
    except Ended as end:
        return str(end)


def dump(client):
    one = client()
    one.open("/do?dump", [("Origin", ORIGIN), ("User-Agent", "measure")])
    return one.host, json.loads(one.frame()[1])


def measure_host(client):
    host, dumped = dump(client)
    headers = {name.lower(): value for name, value in dumped["headers"]}
    changed = []
    if headers.get("host") != host:
        name = headers["host"]
        changed.append("Host: the upstream's" if name.startswith("127.0.0.1:") else f"Host: {name}")
    if headers.get("origin") != ORIGIN:
        changed.append(f"Origin {headers.get('origin')}")
    return ", ".join(changed) or "kept"


def measure_added(client):
    """The headers that the proxy adds, or the client's address by the PROXY protocol."""
    _, dumped = dump(client)
    ours = {"host", "upgrade", "connection", "sec-websocket-version", "sec-websocket-key", "origin", "user-agent"}
    names = sorted({name.lower() for name, _ in dumped["headers"]} - ours)
    shown = ["-".join(part.capitalize() for part in name.split("-")) for name in names]
    if dumped.get("proxy_protocol") is not None:
        shown.insert(0, "PROXY header")
    return ", ".join(shown) or "nothing"


def measure_proxy_header(client):
    _, dumped = dump(client)
    return json.dumps(dumped["proxy_protocol"])


def measure_dump_for_page(client):
    """Whether a page from the proxy gets a dump, for which Host has to arrive with its port."""
    one = client()
    one.open("/do?dump", [("Origin", f"https://{one.host}")])
    return "101"


def measure_h2(client):
    """Whether a WebSocket opens inside an HTTP/2 connection (RFC 8441), and how it arrives."""
    import h2.config
    import h2.connection
    import h2.events
    import h2.settings

    one = client(alpn=("h2", "http/1.1"))
    if not isinstance(one.socket, ssl.SSLSocket) or one.socket.selected_alpn_protocol() != "h2":
        return "no HTTP/2"
    one.socket.settimeout(5)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    one.socket.sendall(connection.data_to_send())

    def events():
        while True:
            for event in connection.receive_data(one.receive()):
                yield event
            one.socket.sendall(connection.data_to_send())

    stream = events()
    next(event for event in stream if isinstance(event, h2.events.RemoteSettingsChanged))
    if not connection.remote_settings.enable_connect_protocol:
        return "HTTP/2 without RFC 8441"
    headers = {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "https",
        ":path": "/do?dump",
        ":authority": one.host,
        "sec-websocket-version": "13",
        "origin": ORIGIN,
    }
    connection.send_headers(1, headers.items())
    one.socket.sendall(connection.data_to_send())
    status, data = None, b""
    for event in stream:
        if isinstance(event, h2.events.ResponseReceived):
            status = dict(event.headers)[":status"]
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            return f"RFC 8441, but {status}: {data.decode().strip()}"
        elif isinstance(event, h2.events.DataReceived):
            data += event.data
            if match := re.search(rb'"request":"(\w+) [^ ]+ (HTTP/[\d.]+)"', data):
                method, version = (part.decode() for part in match.groups())
                return f"RFC 8441, arrives as {method} by {version}"


def measure_idle(client, seconds):
    """When a connection without a byte is ended."""
    one = client()
    one.open("/")
    one.socket.settimeout(seconds)
    began = time.monotonic()
    try:
        one.receive()
        return "bytes"
    except TimeoutError:
        return f"not within {seconds:.0f} s"
    except Ended as end:
        return f"{time.monotonic() - began:.0f} s, {end}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--ca")
    parser.add_argument("--only")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--idle", type=float)
    args = parser.parse_args()

    def client(**options):
        return Client(args.url, args.ca, **options)

    columns = {
        "ping": measure_ping,
        "compression": measure_compression,
        "subprotocol": measure_subprotocol,
        "close": measure_close,
        "close while sending": lambda client: measure_close_while_sending(client, args.count),
        "fin": lambda client: measure_end(client, "fin"),
        "rst": lambda client: measure_end(client, "rst"),
        "drip": measure_drip,
        "503, 401": measure_status,
        "302": measure_redirect,
        "headers": measure_headers,
        "Host, Origin": measure_host,
        "added": measure_added,
        "HTTP/2": measure_h2,
        "delay": measure_delay,
    }
    if args.idle:
        columns["idle"] = lambda client: measure_idle(client, args.idle)
    # What is in no table.
    others = {"proxy header": measure_proxy_header, "dump for its page": measure_dump_for_page}
    columns = columns if args.only is None else {args.only: (columns | others)[args.only]}

    def measure(name):
        try:
            return columns[name](client)
        except (Ended, Refused, OSError) as error:
            return f"{type(error).__name__} {error}"

    with ThreadPoolExecutor() as waiting:
        # These two only wait.
        cells = {name: waiting.submit(measure, name) for name in columns if name in ("delay", "idle")}
        cells = {name: measure(name) for name in columns if name not in cells} | cells
        print(json.dumps({name: cell if isinstance(cell, str) else cell.result() for name, cell in cells.items()}))


main()
