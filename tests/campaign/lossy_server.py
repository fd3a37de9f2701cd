"""A proxy in front of an MLflow server that delays, loses and fails what passes through it, by a plan."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections import Counter
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

# What belongs to one connection, or is said anew.
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}
CREATING = ("/experiments/create", "/runs/create", "/logged-models", "/registered-models/create")
CREATING += ("/model-versions/create", "/runs/outputs")


class Fault(Enum):
    """What becomes of a request."""

    SLOW = auto()
    """Executed, answered late."""
    LOST_REQUEST = auto()
    """Not executed; the connection is cut."""
    LOST_ANSWER = auto()
    """Executed; the connection is cut."""
    LATE = auto()
    """The connection is cut; executed a little later."""
    TRUNCATED = auto()
    """Executed; half of the answer comes, then the connection is cut."""
    GARBLED = auto()
    """Executed; half of the answer comes as if it were all."""
    REFUSED_429 = auto()
    REFUSED_500 = auto()
    """Not executed."""
    EXECUTED_502 = auto()
    """Executed; a gateway says that it was not."""


class SeededPlan:
    """Faults for a share of the requests; each kind of request has its own draws, so that threads change nothing.

    Every third seed strikes creating calls alone, and most of them. The worst of servers is mended some day: after
    forty requests of a kind the next ones pass.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rate = Random(seed).choice((0.05, 0.1, 0.2, 0.4))  # noqa: S311 - a plan, not a secret
        self.only_creating = seed % 3 == 0

    def __call__(self, method: str, path: str, number: int) -> Fault | None:
        if number > 40 or (self.only_creating and not path.endswith(CREATING)):
            return None
        random = Random(f"{self.seed} {method} {path} {number}")  # noqa: S311
        return random.choice(list(Fault)) if random.random() < (0.6 if self.only_creating else self.rate) else None


class LossyServer:
    """Listens until it is closed; `plan(method, path, number)` says what becomes of the nth request of a kind.

    In a kind's path, ids are `*`. Without a plan everything passes.
    """

    def __init__(self, behind: str) -> None:
        self.behind = urlsplit(behind)
        self.plan: Callable[[str, str, int], Fault | None] | None = None
        self.faults: Counter[Fault] = Counter()
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._late: list[threading.Thread] = []
        proxy = self

        class Handler(_Handler):
            server_of = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def follow(self, plan: Callable[[str, str, int], Fault | None] | None) -> None:
        """Begin a plan, with nothing of the one before on its way."""
        self.settle()
        with self._lock:
            self.plan = plan
            self._numbers.clear()
            self.faults.clear()

    def settle(self) -> None:
        """Wait for what is executed late."""
        while self._late:
            self._late.pop().join()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str) -> Fault | None:
        kind = method, re.sub(r"(m-)?[0-9a-f]{32}", "*", urlsplit(path).path)
        with self._lock:
            if self.plan is None:
                return None
            self._numbers[kind] += 1
            fault = self.plan(*kind, self._numbers[kind])
            if fault:
                self.faults[fault] += 1
        return fault

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.behind.hostname or "", self.behind.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def pass_on_later(self, *request: Any) -> None:
        def later() -> None:
            time.sleep(0.15)
            self.pass_on(*request)

        thread = threading.Thread(target=later, daemon=True)
        self._late.append(thread)
        thread.start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and content are two packets: the second must not wait for an answer
    server_of: LossyServer

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has given up
            super().handle_one_request()
            return
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
        request = self.command, self.path, headers, body
        fault = self.server_of.fault(self.command, self.path)
        match fault:
            case Fault.LOST_REQUEST:
                self._cut()
            case Fault.LATE:
                self.server_of.pass_on_later(*request)
                self._cut()
            case Fault.REFUSED_429:
                self._answer(429, [("Retry-After", "0")], b"slow down")
            case Fault.REFUSED_500:
                self._answer(500, [], b"<html>out of order</html>")
            case _:
                status, said, content = self.server_of.pass_on(*request)
                self._spoil(fault, status, said, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do  # noqa: N815 - names that http.server looks for

    def _spoil(self, fault: Fault | None, status: int, said: Any, content: bytes) -> None:
        """Give an answer as it is, or as the fault makes it."""
        match fault:
            case Fault.LOST_ANSWER:
                self._cut()
            case Fault.TRUNCATED:
                self._answer(status, said, content, of=2 * len(content) + 2)
                self._cut()
            case Fault.GARBLED:
                self._answer(status, said, content[: len(content) // 2])
            case Fault.EXECUTED_502:
                self._answer(502, [], b"<html>bad gateway</html>")
            case _:
                if fault is Fault.SLOW:
                    time.sleep(0.1)
                self._answer(status, said, content)

    def _answer(self, status: int, headers: Any, content: bytes, of: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if of is None else of))
        self.end_headers()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
