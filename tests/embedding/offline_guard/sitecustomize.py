"""Stands on the path of the programs under test: whoever touches the network ends at once, and what it was is written
down. Sockets within the machine (asyncio's pairs, Unix sockets) are nobody's business.
"""

import os
import sys
from pathlib import Path

EVENTS = (
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.getnameinfo",
    "socket.sendmsg",
    "socket.sendto",
    "ftplib.connect",
    "http.client.connect",
    "smtplib.connect",
    "urllib.Request",
)


def guard(event: str, arguments: tuple[object, ...]) -> None:
    if event not in EVENTS:
        return
    if event.startswith("socket.") and any(isinstance(part, (str, bytes)) for part in arguments[1:2]):
        return  # the address of a Unix socket is a path
    with Path(os.environ["OFFLINE_LOG"]).open("a") as log:
        log.write(f"{event} {arguments!r} in {sys.argv}\n")
    os._exit(99)


if "OFFLINE_LOG" in os.environ:
    sys.addaudithook(guard)
