"""A server of HTTP/1.1 that says what it was asked.

    http_server.py PORT

| path | answer |
|---|---|
| `/chunked/N` | N chunks, the n-th of n bytes |
| `/until-close` | a body that lasts until the close |
| `/status/N` | that status, and a body where it may have one |
| any other | the method, the path, the fields that begin with `X-`, and the body |
"""

import http.server
import socketserver
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "server", ""
    wbufsize = -1  # a head and its body go out together
    disable_nagle_algorithm = True

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        return b"".join(parts)

    def answer(self):
        body = self.body()
        *_, kind, number = self.path.rsplit("/", 2)
        if kind == "chunked" and self.request_version == "HTTP/1.1":
            self.chunked(int(number))
        elif kind == "status":
            self.plain(int(number), b"a status\n")
        elif number == "until-close":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"until the close\n")
            self.close_connection = True
        else:
            fields = [f"{name}: {value}" for name, value in self.headers.items() if name.lower().startswith("x-")]
            lines = [f"{self.command} {self.path}", *fields, f"{len(body)} bytes", ""]
            self.plain(200, "\n".join(lines).encode() + body)

    def plain(self, status, body):
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        elif self.request_version == "HTTP/1.0":
            self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def chunked(self, count):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for size in range(1, count + 1):
            self.wfile.write(b"%x\r\n%s\r\n" % (size, b"x" * size))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """A client has gone."""


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
