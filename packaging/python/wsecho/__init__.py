"""Starts wsecho for a test: `with wsecho.serve("--prefix", "") as server: connect(server.url)`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sysconfig
import threading

# The guard stops the server when its standard input ends, which also happens when this process is killed.
_GUARD = '"$0" "$@" & exec 2>&-; read -r _; kill $!; wait $!'


class Server(contextlib.AbstractContextManager["Server"]):
    """A wsecho with `flags` on a free port: its `url`, its `http_url`, the lines of its `log`."""

    def __init__(self, *flags: str) -> None:
        self.log: list[str] = []
        self._has_ended = False
        self._log_grew = threading.Condition()
        # Only the flags configure the server. Ctrl-C ends the test, which then stops it.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, _program(), "--addr", "127.0.0.1:0", *flags],
            env={k: v for k, v in os.environ.items() if not k.startswith(("WSECHO_", "RUST_LOG"))},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            listening = self.wait_for("listening on ", timeout=10)
        except BaseException:
            self.stop()
            raise
        self.url = listening.partition("listening on ")[2].split()[0].rstrip("/,")
        self.http_url = self.url.replace("ws", "http", 1)

    def _read_log(self) -> None:
        for line in self._guard.stderr or ():
            with self._log_grew:
                self.log.append(line.rstrip("\n"))
                self._log_grew.notify_all()
        with self._log_grew:
            self._has_ended = True
            self._log_grew.notify_all()

    def wait_for(self, text: str, timeout: float = 5) -> str:
        """Returns the first line of the log that contains `text`, or waits for it."""
        with self._log_grew:
            self._log_grew.wait_for(lambda: self._has_ended or text in "\n".join(self.log), timeout)
            for line in self.log:
                if text in line:
                    return line
            raise RuntimeError("\n".join([f"wsecho did not log {text!r}:", *self.log[-20:]]))

    def stop(self) -> None:
        """Sends each client Close 1001 and waits for the server's end. Then the log is complete."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            # Not by closing the pipe, since a child forked meanwhile may hold it open.
            print(file=self._guard.stdin, flush=True)
            self._reader.join()
            self._guard.communicate()

    def __exit__(self, *_: object) -> None:
        self.stop()


serve = Server


def _program() -> str:
    """The wsecho of this installation, or the one on PATH."""
    target = os.path.join(os.path.dirname(__file__), "..", "bin")  # pip install --target
    scripts = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user"), target]
    for folder in [*scripts, None]:
        if program := shutil.which("wsecho", path=folder):
            return program
    raise FileNotFoundError("wsecho is neither installed with this module nor on PATH")
