"""A web server on this machine that serves one file by ranges and has, request by request, the fault that it is told to have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 4096


@dataclass
class Served:
    """What is served and how, changed by tests while the server runs.

    Attributes:
        content: The file.
        etag: Its ETag; None for no validator at all.
        faults: One a request, the first first; then none. See `_Handler.do_GET`.
        after: A fault that breaks off does so after this many bytes of its answer.
        next_content: What the fault "change" turns the file into, and its next ETag.
        delay_s: Pause between pieces.
        requests: Headers of every request.
    """

    content: bytes
    etag: str | None = '"one"'
    faults: list[str] = field(default_factory=list)
    after: int = 5000
    next_content: bytes = b""
    delay_s: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        served = self.served
        served.requests.append({name.lower(): value for name, value in self.headers.items()})
        fault = served.faults.pop(0) if served.faults else ""
        self.close_connection = True
        plain = {"404": 404, "403": 403, "500": 500, "503": 503}
        if fault in plain:
            return self._answer(plain[fault], {"Retry-After": "0"} if fault == "503" else {}, b"no")
        if fault == "page":
            return self._answer(200, {"Content-Type": "text/html"}, b"<html>log in first</html>")
        if fault == "gzip":
            return self._answer(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b" + served.content)
        if fault == "loop":
            served.faults.insert(0, "loop")
            return self._answer(302, {"Location": self.path}, b"")
        if fault == "away":
            return self._answer(302, {"Location": "ftp://elsewhere/file"}, b"")
        if fault == "moved":
            return self._answer(302, {"Location": "/moved"}, b"")
        if fault == "hang up":
            return None
        self._serve(fault)

    def _serve(self, fault: str) -> None:
        served, content = self.served, self.served.content
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked.startswith("bytes=") else None
        fits = self.headers.get("If-Range") in (None, served.etag) and not (served.etag or "").startswith("W/")
        if start is not None and "If-Range" in self.headers and not fits:
            start = None
        if fault == "whole":
            start = None
        headers = {"ETag": served.etag} if served.etag is not None else {}
        if fault == "416" or (start is not None and start >= len(content)):
            return self._answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        body = content[start or 0 :]
        if start is not None:
            shown = start + 7 if fault == "wrong range" else start
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        length = len(body) + {"says more": 999, "says less": -min(999, len(body) - 1)}.get(fault, 0)
        self._head(206 if start is not None else 200, headers | {"Content-Length": str(length)})
        cut = served.after if fault in ("drop", "stall", "change") else len(body)
        self._pieces(body[:cut])
        if fault == "stall":
            time.sleep(0.9)
        if fault == "change":
            served.content, served.etag = served.next_content, None if served.etag is None else served.etag.replace("one", "two")

    def _pieces(self, body: bytes) -> None:
        for place in range(0, len(body), PIECE):
            try:
                self.wfile.write(body[place : place + PIECE])
                self.wfile.flush()
            except OSError:  # the client has had enough
                return
            time.sleep(self.served.delay_s)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._head(status, headers | {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """The server, for as long as this lasts; its address is in `served`."""
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
