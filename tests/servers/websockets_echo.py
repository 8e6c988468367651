"""A server of websockets that says everything back.

    websockets_echo.py PORT
"""

import sys

from websockets.sync.server import serve


def echo(connection):
    for message in connection:
        if message == "leave":
            return connection.close(4000, "as you wish")
        connection.send(message)


with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None) as server:
    print("ready", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
