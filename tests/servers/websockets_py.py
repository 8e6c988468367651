"""websockets, unchanged, before clients that share trunks.

    websockets_py.py PROXY_PORT

Prints a line for each thing that it has shown.
"""

import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from checks import HANG, at_once, equal, shown

URL = f"ws://127.0.0.1:{sys.argv[1]}/"
BIG = bytes(n * n % 251 for n in range(1_000_000))


def talk(number):
    with connect(URL, max_size=None, open_timeout=HANG, proxy=None) as socket:
        for message in (f"hello {number}", "", "ü", b"", b"\0\xff", BIG, "x" * 100_000):
            socket.send(message)
            equal("said back", socket.recv(HANG), message)
        for n in range(100):
            socket.send(f"{number} {n}")
        equal("a hundred", [socket.recv(HANG) for _ in range(100)], [f"{number} {n}" for n in range(100)])
        equal("a pong", socket.ping().wait(HANG), True)


def left():
    with connect(URL, open_timeout=HANG, proxy=None) as socket:
        socket.send("leave")
        try:
            socket.recv(HANG)
            raise AssertionError("it did not leave")
        except ConnectionClosed as closed:
            equal("why", (closed.rcvd.code, closed.rcvd.reason), (4000, "as you wish"))


talk(0)
shown("websockets: text, bytes, big, many, ping")
left()
shown("websockets: left by the server")
at_once([lambda number=number: talk(number) for number in range(20)])
shown("websockets: twenty, which is more than there are trunks")
