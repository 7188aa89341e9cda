"""Tests of the installed module. packaging/release runs them."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

import wsecho


def test_it_listens_and_stops():
    with wsecho.serve("--behaviors", "off") as server:
        assert server.url.startswith("ws://127.0.0.1:")
        assert server.http_url == server.url.replace("ws", "http")
        with urllib.request.urlopen(server.http_url + "/healthz") as response:
            assert response.read() == b"ok\n"
    server.stop()
    assert "stopped" in server.log[-1]
    assert not is_listening(server.url)


def test_it_speaks_tls(tmp_path):
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = [str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")]
    subject = ["-nodes", "-subj", "/CN=localhost", "-keyout", files[0], "-out", files[1]]
    subprocess.run([*make, *subject], check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    with wsecho.serve("--tls-key", files[0], "--tls-cert", files[1]) as server:
        assert server.url.startswith("wss://") and server.http_url.startswith("https://")


def test_a_start_that_fails_raises_with_the_reason():
    with pytest.raises(RuntimeError, match="unexpected argument '--colour'"):
        wsecho.serve("--colour")
    with pytest.raises(RuntimeError, match="listening on .*\n.*does not have that address"):
        wsecho.serve("--addr", "192.0.2.1:0")


def test_only_flags_configure_it(monkeypatch):
    monkeypatch.setenv("WSECHO_LOG_FILE", "/no/such/folder/log")
    monkeypatch.setenv("RUST_LOG", "off")
    with wsecho.serve():
        pass


def test_a_line_that_is_not_logged_is_waited_for_and_raises_with_the_log():
    missing = "did not log 'nothing'(.|\n)*listening on"
    with wsecho.serve() as server, pytest.raises(RuntimeError, match=missing):
        server.wait_for("nothing", timeout=0.1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_it_running():
    with wsecho.serve() as server:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not is_listening(server.url)


def test_it_ends_with_a_process_that_is_killed():
    code = "import wsecho\nwith wsecho.serve() as server: print(server.url, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        url = owner.stdout.readline().strip()
        assert is_listening(url)
        owner.kill()
    wait_for_the_end(url)


def test_it_keeps_no_process_from_its_end():
    code = "import wsecho\nserver = wsecho.serve()\nprint(server.url)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 0, ended.stderr
    wait_for_the_end(ended.stdout.strip())


def wait_for_the_end(url):
    deadline = time.monotonic() + 10
    while is_listening(url):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_listening(url):
    host, port = url.rpartition("/")[2].split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0
