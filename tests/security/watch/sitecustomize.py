"""Loaded by every Python that starts with this folder in PYTHONPATH, worker processes too: network events are written down and refused."""

import os
import sys

EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"}


def _watch(event, arguments):  # type: ignore[no-untyped-def]
    if event not in EVENTS:
        return
    address = arguments[-1] if event in ("socket.connect", "socket.sendto", "socket.bind") else arguments[0]
    if isinstance(address, str | bytes) and event in ("socket.connect", "socket.sendto", "socket.bind"):
        return  # a socket of this machine's file system
    with open(os.environ["NETWORK_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{event} {address!r}\n")
    raise PermissionError(f"{event} {address!r}: no network here")


if "NETWORK_LOG" in os.environ:
    sys.addaudithook(_watch)
