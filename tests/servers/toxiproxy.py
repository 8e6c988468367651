"""Toxiproxy's Python client (toxiproxy-python on PyPI), unchanged, before `trunkline faults` with Redis behind it.

    toxiproxy.py API_HOST API_PORT REDIS_PORT [--measure]

Prints a line for each thing that it has shown, and stops at the first that is not so. What the client has no call for
is asked with requests. With --measure it asserts nothing, and prints how near the toxics come to what is asked.
"""

import errno
import json
import re
import socket
import statistics
import sys
import time
import traceback

# The folder of this file, in which the client would not be found, but this file.
sys.path = sys.path[1:]

import requests  # noqa: E402
from toxiproxy import Toxiproxy  # noqa: E402
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists  # noqa: E402

HANG = 10  # seconds: nothing that is served takes as long, on any machine
NEVER = 60_000  # milliseconds: what a toxic holds for so long comes only when the toxic goes
STREAMS = ("upstream", "downstream")

HOST, API_PORT, REDIS_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
API = f"http://{HOST}:{API_PORT}"
UPSTREAM = f"127.0.0.1:{REDIS_PORT}"
BIG = bytes(ord("a") + n * n % 25 for n in range(100_000))
BIG_REPLY = b"$%d\r\n%s\r\n" % (len(BIG), BIG)
PING = 14  # bytes of the command; its reply has 7

http = requests.Session()
http.trust_env = False  # no HTTP proxy on the way, whatever the environment says


# --- What is said ----------------------------------------------------------------------------------------------------


class Failed(Exception):
    pass


def shown(what):
    print(what, flush=True)


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({len(value)} long)"


def equal(what, seen, expected):
    if seen != expected:
        raise Failed(f"{what}: expected {short(expected)}, seen {short(seen)}")


def takes(least, what, run):
    """Runs it; it must take so many milliseconds at the least."""
    began = time.monotonic()
    result = run()
    took = (time.monotonic() - began) * 1000
    if took < least:
        raise Failed(f"{what}: expected at least {least} ms, took {took:.3f} ms")
    return result


def refused(what, exception, run):
    """Runs it; it must raise this."""
    try:
        result = run()
    except exception as error:
        return error
    except Exception as error:
        raise Failed(f"{what}: expected {exception.__name__}, seen {error!r}") from error
    raise Failed(f"{what}: expected {exception.__name__}, but it gave {short(result)}")


# --- A client of Redis -----------------------------------------------------------------------------------------------


def command(*words):
    words = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Redis:
    """One connection, to a proxy or to Redis itself."""

    def __init__(self, proxy=None):
        port = int(proxy.listen.rpartition(":")[2]) if proxy else REDIS_PORT
        self.socket = socket.create_connection(("127.0.0.1", port), HANG)
        self.buffer = b""
        self.last = "connecting"

    def send(self, *words):
        self.last = short(words[0])
        self.socket.sendall(command(*words))

    def fill(self):
        """Reads what there is; an end or a reset is a failure."""
        try:
            read = self.socket.recv(1 << 16)
        except socket.timeout:
            raise Failed(f"nothing came for {HANG} s after {self.last} and {len(self.buffer)} bytes") from None
        except OSError as error:
            raise Failed(f"after {self.last} and {len(self.buffer)} bytes: {error}") from None
        if not read:
            raise Failed(f"the connection ended after {self.last} and {len(self.buffer)} bytes")
        self.buffer += read

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def reply(self):
        """The bytes of the next reply, whole."""
        while b"\r\n" not in self.buffer:
            self.fill()
        line = self.buffer.index(b"\r\n") + 2
        length = int(self.buffer[1:line]) if self.buffer[:1] == b"$" else -1
        return self.take(line if length < 0 else line + length + 2)

    def ask(self, *words):
        self.send(*words)
        return self.reply()

    def ping(self):
        equal("the reply to PING", self.ask("PING"), b"+PONG\r\n")

    def end(self):
        """All that comes to the end of the stream, and how that is seen."""
        try:
            while read := self.socket.recv(1 << 16):
                self.buffer += read
            how = "end"
        except socket.timeout:
            how = f"still open after {HANG} s"
        except OSError as error:
            how = errno.errorcode[error.errno]
        self.socket.close()
        rest, self.buffer = self.buffer, b""
        return rest, how


def served(what, proxy):
    """A new connection is served."""
    redis = Redis(proxy)
    redis.ping()
    equal(f"{what}: GET on a new connection", redis.ask("GET", "big"), BIG_REPLY)
    redis.socket.close()


# --- A toxic's life --------------------------------------------------------------------------------------------------


def raw(method, path, body=None):
    """What the client has no call for."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body)
    return http.request(method, API + path, data=data, timeout=HANG)


def ask_api(method, path, body=None, status=200):
    answer = raw(method, path, body)
    equal(f"{method} {path} {short(body)}: the status (the body is {answer.text[:200]})", answer.status_code, status)
    return answer


class Toxic:
    """Adds a toxic, and sees that it is there."""

    def __init__(self, proxy, kind, stream, toxicity=1, **attributes):
        self.proxy, self.name = proxy, f"{kind}_{stream}"
        proxy.add_toxic(type=kind, stream=stream, toxicity=toxicity, attributes=attributes)
        self.expected = {"type": kind, "stream": stream, "name": self.name, "toxicity": toxicity}
        self.attributes = attributes
        self.listed()

    def listed(self):
        expected = {**self.expected, "attributes": self.attributes}
        equal(f"{self.name} by get_toxic", vars(self.proxy.get_toxic(self.name)), expected)
        listed = self.proxy.toxics()
        equal(f"{self.name} in toxics", {name: vars(toxic) for name, toxic in listed.items()}, {self.name: expected})

    def change(self, **attributes):
        """What is not named stays as it was; the client cannot do this."""
        ask_api("PATCH", f"/proxies/{self.proxy.name}/toxics/{self.name}", {"attributes": attributes})
        self.attributes.update(attributes)
        self.listed()

    def remove(self):
        equal(f"destroy_toxic {self.name}", self.proxy.destroy_toxic(self.name), True)
        equal(f"{self.name} when it is removed", self.proxy.get_toxic(self.name), None)
        refused(f"{self.name} removed again", NotFound, lambda: self.proxy.destroy_toxic(self.name))


def received(proxy, stream):
    """How many bytes of a direction the proxy has read, of all its connections."""
    found = re.search(
        rf'^toxiproxy_proxy_received_bytes_total{{direction="{stream}",proxy="{proxy.name}",.*}} (\d+)$',
        ask_api("GET", "/metrics").text,
        re.MULTILINE,
    )
    if not found:
        raise Failed(f"/metrics says nothing of the bytes of {proxy.name} {stream}")
    return int(found[1])


def send_and_see(proxy, stream, redis, *words):
    """Sends a command, and returns when some of it, or of the reply to it, has come into the toxic's hands."""
    before = received(proxy, stream)
    redis.send(*words)
    deadline = time.monotonic() + HANG
    while received(proxy, stream) == before:
        if time.monotonic() > deadline:
            raise Failed(f"the proxy had read nothing {stream} {HANG} s after {redis.last}")


def latency(proxy, stream):
    redis = Redis(proxy)
    redis.ping()
    toxic = Toxic(proxy, "latency", stream, latency=150, jitter=50)
    for _ in range(5):
        takes(100, f"PING with a latency of 150 +- 50 ms {stream}", redis.ping)
    toxic.change(latency=300, jitter=0)
    takes(300, f"PING with a latency of 300 ms {stream}", redis.ping)
    toxic.change(latency=NEVER)
    send_and_see(proxy, stream, redis, "GET", "big")
    toxic.remove()
    equal("the reply that was held back", redis.reply(), BIG_REPLY)
    redis.ping()


def bandwidth(proxy, stream):
    redis, direct = Redis(proxy), Redis()
    words = ("GET", "big") if stream == "downstream" else ("SET", "copy", BIG)
    reply = BIG_REPLY if stream == "downstream" else b"+OK\r\n"
    redis.ping()
    toxic = Toxic(proxy, "bandwidth", stream, rate=500)
    what = f"100 kB at 500 KB/s {stream}"
    equal(what, takes(180, what, lambda: redis.ask(*words)), reply)
    toxic.change(rate=250)
    what = f"100 kB at 250 KB/s {stream}"
    equal(what, takes(360, what, lambda: redis.ask(*words)), reply)
    # 100 s for all of it.
    toxic.change(rate=1)
    direct.ask("DEL", "copy")
    send_and_see(proxy, stream, redis, *words)
    toxic.remove()
    equal("the reply that was on its way", redis.reply(), reply)
    redis.ping()
    if stream == "upstream":
        equal("the value that was on its way", direct.ask("GET", "copy"), BIG_REPLY)


def slow_close(proxy, stream):
    def begin_to_end(redis):
        if stream == "upstream":
            # The client is the first to end its stream, and Redis follows.
            redis.last = "the end of the client's stream"
            redis.socket.shutdown(socket.SHUT_WR)
        else:
            equal("the reply to QUIT", redis.ask("QUIT"), b"+OK\r\n")

    def ended(redis):
        begin_to_end(redis)
        return redis.end()

    redis = Redis(proxy)
    redis.ping()
    toxic = Toxic(proxy, "slow_close", stream, delay=200)
    redis.ping()
    what = f"the end with slow_close 200 ms {stream}"
    equal(what, takes(200, what, lambda: ended(redis)), (b"", "end"))
    toxic.change(delay=400)
    redis = Redis(proxy)
    redis.ping()
    what = f"the end with slow_close 400 ms {stream}"
    equal(what, takes(400, what, lambda: ended(redis)), (b"", "end"))
    toxic.change(delay=NEVER)
    redis = Redis(proxy)
    redis.ping()
    begin_to_end(redis)
    # Others are served meanwhile.
    served(f"slow_close {stream}", proxy)
    toxic.remove()
    equal("the end that was held back", redis.end(), (b"", "end"))


def timeout(proxy, stream):
    redis, direct = Redis(proxy), Redis()
    redis.ping()
    direct.ask("DEL", "copy")
    toxic = Toxic(proxy, "timeout", stream, timeout=0)
    send_and_see(proxy, stream, redis, "SET", "copy", "1")
    toxic.remove()
    equal(f"what passes a timeout {stream}", redis.end(), (b"", "end"))
    came = b":0\r\n" if stream == "upstream" else b":1\r\n"
    equal(f"whether a SET came to Redis with timeout {stream}", direct.ask("EXISTS", "copy"), came)
    served(f"timeout {stream} removed", proxy)

    toxic = Toxic(proxy, "timeout", stream, timeout=0)
    toxic.change(timeout=200)

    def closed():
        redis = Redis(proxy)
        redis.send("PING")
        return redis.end()

    what = f"a PING with timeout 200 ms {stream}"
    equal(what, takes(200, what, closed), (b"", "end"))
    toxic.remove()
    served(f"timeout {stream} removed again", proxy)


def reset_peer(proxy, stream):
    def reset():
        redis = Redis(proxy)
        redis.send("PING")
        return redis.end()

    expected = (b"", "ECONNRESET")
    redis = Redis(proxy)
    redis.ping()
    toxic = Toxic(proxy, "reset_peer", stream, timeout=0)
    redis.send("PING")
    equal(f"a connection that lives, with reset_peer {stream}", redis.end(), expected)
    equal(f"a new connection with reset_peer {stream}", reset(), expected)
    toxic.change(timeout=200)
    what = f"a new connection with reset_peer 200 ms {stream}"
    equal(what, takes(200, what, reset), expected)
    toxic.change(timeout=NEVER)
    redis = Redis(proxy)
    send_and_see(proxy, stream, redis, "GET", "big")
    toxic.remove()
    equal("the reply that was held back", redis.reply(), BIG_REPLY)
    redis.ping()
    served(f"reset_peer {stream} removed", proxy)


def slicer(proxy, stream):
    value = BIG[:1000]
    redis, direct = Redis(proxy), Redis()
    direct.ask("SET", "small", value)
    words = ("GET", "small") if stream == "downstream" else ("SET", "small", value)
    reply = b"$1000\r\n%s\r\n" % value if stream == "downstream" else b"+OK\r\n"
    redis.ping()
    toxic = Toxic(proxy, "slicer", stream, average_size=20, size_variation=5, delay=4000)
    # Pieces of 25 bytes at the most; the rest behind the last is not seen.
    what = f"1000 bytes in slices of 20 +- 5 with 4 ms between {stream}"
    equal(what, takes(39 * 4, what, lambda: redis.ask(*words)), reply)
    toxic.change(average_size=10, size_variation=0)
    what = f"1000 bytes in slices of 10 with 4 ms between {stream}"
    equal(what, takes(99 * 4, what, lambda: redis.ask(*words)), reply)
    toxic.change(delay=NEVER * 1000)
    send_and_see(proxy, stream, redis, *words)
    toxic.remove()
    equal("the reply that was held back", redis.reply(), reply)
    redis.ping()
    equal("the value behind the slicer", direct.ask("GET", "small"), b"$1000\r\n%s\r\n" % value)


def limit_data(proxy, stream):
    def limited(redis, pings):
        """Two commands pass; the third one, or the reply to it, breaks off."""
        for _ in range(pings):
            redis.ping()
        redis.send("PING")
        return redis.end()

    part = PING // 2 if stream == "upstream" else 3
    of_third = b"" if stream == "upstream" else b"+PO"
    whole = PING if stream == "upstream" else 7
    redis = Redis(proxy)
    redis.ping()
    toxic = Toxic(proxy, "limit_data", stream, bytes=2 * whole + part)
    # On a connection that lives, the bytes count from here.
    equal(f"a connection that lives, with limit_data {stream}", limited(redis, 2), (of_third, "end"))
    equal(f"a new connection with limit_data {stream}", limited(Redis(proxy), 2), (of_third, "end"))
    toxic.change(bytes=whole + part)
    equal(f"a new connection with less limit_data {stream}", limited(Redis(proxy), 1), (of_third, "end"))
    redis = Redis(proxy)
    redis.ping()
    toxic.remove()
    equal("GET when the limit is removed", redis.ask("GET", "big"), BIG_REPLY)
    redis.ping()


# --- Everything else -------------------------------------------------------------------------------------------------


def proxies_come_and_go(server):
    version = json.loads(server.version())["version"]
    equal("the version is Toxiproxy's", bool(re.fullmatch(r"2\.\d+\.\d+", version)), True)
    equal("running", server.running(), True)
    equal("no proxies yet", server.proxies(), {})
    equal("a proxy that is not there", server.get_proxy("nobody"), None)
    proxy = server.create(upstream=UPSTREAM, name="one")
    equal("a new proxy", (proxy.name, proxy.upstream, proxy.enabled), ("one", UPSTREAM, True))
    equal("a port was chosen", bool(re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", proxy.listen)), True)
    equal("get_proxy", vars(server.get_proxy("one")), vars(proxy))
    equal("its toxics", proxy.toxics(), {})
    served("a new proxy", proxy)
    # A name is quoted in the path.
    odd = server.create(upstream=UPSTREAM, name="one & only ü")
    Toxic(odd, "latency", "upstream", latency=1, jitter=0).remove()
    odd.disable()
    off = server.create(upstream=UPSTREAM, name="off", enabled=False)
    equal("a proxy that begins disabled", off.enabled, False)
    listed = {name: proxy.enabled for name, proxy in server.proxies().items()}
    equal("proxies", listed, {"one": True, "one & only ü": False, "off": False})
    two = {"name": "two", "upstream": UPSTREAM, "listen": "127.0.0.1:0"}
    made = server.populate([{"name": "one", "upstream": UPSTREAM, "listen": proxy.listen}, two])
    equal("populate makes those that are not there", [made.name for made in made], ["two"])
    served("a proxy by populate", made[0])
    served("a proxy that populate left alone", proxy)
    equal("destroy", server.destroy(made[0]), True)
    refused("a destroyed proxy", ConnectionRefusedError, lambda: Redis(made[0]))
    refused("destroy again", NotFound, lambda: server.destroy(made[0]))
    redis = Redis(proxy)
    redis.ping()
    server.destroy_all()
    equal("proxies after destroy_all", server.proxies(), {})
    equal("the connection of a destroyed proxy carries nothing", redis.end()[0], b"")
    shown("proxies: create, get_proxy, proxies, populate, destroy, destroy_all, version")


def down_and_up(proxy):
    redis = Redis(proxy)
    redis.ping()
    with proxy.down():
        equal("the connection of a disabled proxy carries nothing", redis.end()[0], b"")
        refused("a disabled proxy", ConnectionRefusedError, lambda: Redis(proxy))
    served("enabled again", proxy)
    proxy.disable()
    proxy.disable()
    refused("a disabled proxy", ConnectionRefusedError, lambda: Redis(proxy))
    toxic = Toxic(proxy, "latency", "downstream", latency=100, jitter=0)
    proxy.enable()
    proxy.enable()
    redis = Redis(proxy)
    takes(100, "PING with a toxic from before the proxy was enabled", redis.ping)
    toxic.remove()
    redis.ping()
    shown("enabled: a disabled proxy refuses, and serves again when enabled")


def reset(server, proxy):
    for stream in STREAMS:
        proxy.add_toxic(type="reset_peer", stream=stream, attributes={"timeout": 0})
        proxy.add_toxic(type="bandwidth", stream=stream, attributes={"rate": 0})
    redis = Redis(proxy)
    redis.send("PING")
    equal("reset_peer before the reset of all", redis.end(), (b"", "ECONNRESET"))
    equal("reset", server.reset(), True)
    equal("toxics after the reset of all", proxy.toxics(), {})
    served("after the reset of all", proxy)
    redis = Redis(proxy)
    redis.ping()
    proxy.add_toxic(type="latency", attributes={"latency": NEVER})
    send_and_see(proxy, "downstream", redis, "GET", "big")
    server.reset()
    equal("the reply that was held back before the reset of all", redis.reply(), BIG_REPLY)
    proxy.disable()
    server.reset()
    equal("enabled by the reset of all", server.get_proxy(proxy.name).enabled, True)
    served("enabled by the reset of all", proxy)
    shown("reset: enables, takes out the toxics, loses nothing; new connections are served at once")


def toxicity(proxy):
    for stream in STREAMS:
        toxics = [
            ("latency", {"latency": NEVER}),
            ("timeout", {"timeout": 0}),
            ("reset_peer", {"timeout": 0}),
            ("limit_data", {"bytes": 0}),
        ]
        for kind, attributes in toxics:
            proxy.add_toxic(type=kind, stream=stream, toxicity=0, attributes=attributes)
        equal("toxicities", {toxic.toxicity for toxic in proxy.toxics().values()}, {0})
        served(f"toxicity 0 {stream}", proxy)
        for kind, _ in toxics:
            proxy.destroy_toxic(f"{kind}_{stream}")
    shown("toxicity 0: nothing happens")
    Toxic(proxy, "latency", "downstream", toxicity=0.3, latency=1, jitter=0).remove()
    shown("toxicity 0.3 is listed as 0.3")


def on(server, proxy):
    for stream, whole, reply in (("upstream", PING, b""), ("downstream", 7, b"+PO")):
        # The connections count from 1 again.
        server.reset()
        toxics = f"/proxies/{proxy.name}/toxics"
        where = {"connection": 2, "after_bytes": 3 * whole + 3}
        body = {"type": "reset_peer", "stream": stream, "attributes": {"timeout": 0}, "on": where}
        equal("a toxic with a place", ask_api("POST", toxics, body).json()["on"], where)
        for connection in (1, 2, 3):
            redis = Redis(proxy)
            for _ in range(3):
                redis.ping()
            redis.send("PING")
            if connection == 2:
                equal(f"connection 2 behind 3 PINGs {stream}", redis.end(), (reply, "ECONNRESET"))
            else:
                equal(f"connection {connection} {stream}", redis.reply(), b"+PONG\r\n")
                redis.ping()
        ask_api("PATCH", f"{toxics}/reset_peer_{stream}", {"on": {"connection": 4, "after_bytes": whole + 3}})
        redis = Redis(proxy)
        redis.ping()
        redis.send("PING")
        equal(f"connection 4 behind a PING {stream}", redis.end(), (reply, "ECONNRESET"))
        # On a connection that lives, too.
        redis = Redis(proxy)
        redis.ping()
        ask_api("PATCH", f"{toxics}/reset_peer_{stream}", {"on": {"connection": 5, "after_bytes": 2 * whole + 3}})
        redis.ping()
        redis.send("PING")
        equal(f"connection 5 behind 2 PINGs {stream}", redis.end(), (reply, "ECONNRESET"))
        # And where the toxic stands already.
        ask_api("PATCH", f"{toxics}/reset_peer_{stream}", {"on": {"connection": 6, "after_bytes": 9 * whole}})
        redis = Redis(proxy)
        redis.ping()
        ask_api("PATCH", f"{toxics}/reset_peer_{stream}", {"on": {"connection": 6, "after_bytes": 2 * whole + 3}})
        redis.ping()
        redis.send("PING")
        equal(f"connection 6 behind 2 PINGs, no longer 9 {stream}", redis.end(), (reply, "ECONNRESET"))
        proxy.destroy_toxic(f"reset_peer_{stream}")
        served(f"a toxic with a place removed {stream}", proxy)
    shown("on: the second connection alone is reset, behind exactly the byte that was named")


def bad_input(server, proxy):
    proxy.add_toxic(type="latency", name="there", attributes={"latency": 0, "jitter": 0})
    before = raw("GET", "/proxies").json()
    proxies, toxics = "/proxies", f"/proxies/{proxy.name}/toxics"
    new = {"name": "new", "upstream": UPSTREAM, "listen": "127.0.0.1:0"}
    taken = f"127.0.0.1:{API_PORT}"
    wrong_stream = "stream was invalid, can be either upstream or downstream"

    add = lambda **words: lambda: proxy.add_toxic(**words)  # noqa: E731
    refused("a toxic of no known type", InvalidToxic, add(type="poison"))
    refused("a toxic in no known stream", InvalidToxic, add(type="latency", stream="sideways"))
    refused("an attribute in words", InvalidToxic, add(type="latency", attributes={"latency": "long"}))
    refused("a toxic that is there", ProxyExists, add(type="latency", name="there"))
    refused("a toxic that is not there", NotFound, lambda: proxy.destroy_toxic("nowhere"))
    refused("a proxy that is there", ProxyExists, lambda: server.create(UPSTREAM, proxy.name))
    refused("a proxy without an upstream", InvalidToxic, lambda: server.create("", "new"))

    for status, error, method, path, body in [
        (400, "invalid toxic type", "POST", toxics, {"type": "poison"}),
        (400, "invalid toxic type", "POST", toxics, {}),
        (400, wrong_stream, "POST", toxics, {"type": "latency", "stream": "sideways"}),
        (400, "bad request body: ", "POST", toxics, {"type": "latency", "attributes": {"latency": "long"}}),
        (400, "bad request body: ", "POST", toxics, {"type": "latency", "attributes": 7}),
        (400, "bad request body: ", "POST", toxics, {"type": "latency", "toxicity": "all"}),
        (400, "bad request body: ", "POST", toxics, {"type": "latency", "toxicity": 1e40}),
        (400, "bad request body: ", "POST", toxics, {"type": "latency", "on": 7}),
        (400, "bad request body: ", "POST", toxics, {"type": "latency", "on": {"after_bytes": -1}}),
        (400, "bad request body: ", "POST", toxics, ["listed", "latency", "upstream", 1, {}, None]),
        (400, "bad request body: ", "POST", toxics, b"{"),
        (400, "bad request body: ", "POST", toxics, b""),
        (400, "bad request body: ", "POST", f"{toxics}/there", {"attributes": {"latency": "long"}}),
        (409, "toxic already exists", "POST", toxics, {"type": "latency", "name": "there"}),
        (409, "toxic already exists", "POST", toxics, {"type": "timeout", "name": "there", "stream": "upstream"}),
        (404, "toxic not found", "GET", f"{toxics}/nowhere", None),
        (404, "toxic not found", "POST", f"{toxics}/nowhere", {"attributes": {}}),
        (404, "toxic not found", "DELETE", f"{toxics}/nowhere", None),
        (404, "proxy not found", "GET", f"{proxies}/nobody", None),
        (404, "proxy not found", "POST", f"{proxies}/nobody", {"enabled": False}),
        (404, "proxy not found", "DELETE", f"{proxies}/nobody", None),
        (404, "proxy not found", "GET", f"{proxies}/nobody/toxics", None),
        (404, "proxy not found", "POST", f"{proxies}/nobody/toxics", {"type": "latency"}),
        (409, "proxy already exists", "POST", proxies, {**new, "name": proxy.name}),
        (400, "missing required field: name", "POST", proxies, {"upstream": UPSTREAM}),
        (400, "missing required field: upstream", "POST", proxies, {"name": "new"}),
        (400, "bad request body: ", "POST", proxies, {**new, "enabled": "yes"}),
        (400, "bad request body: ", "POST", proxies, {**new, "name": 7}),
        (400, "bad request body: ", "POST", proxies, b"not JSON"),
        (400, "bad request body: ", "POST", proxies, b"\xff\xfe"),
        (400, "bad request body: ", "POST", proxies, b"x" * 10_000_000),
        (400, "bad request body: ", "POST", f"{proxies}/{proxy.name}", b"x" * 10_000_000),
        (400, "bad request body: ", "POST", f"{proxies}/{proxy.name}", {"enabled": 7}),
        (400, "bad request body: ", "POST", f"{proxies}/{proxy.name}", ["127.0.0.1:0", UPSTREAM, True]),
        (400, "bad request body: ", "POST", "/populate", new),
        (400, "missing required field: name at proxy 2", "POST", "/populate", [new, {"upstream": UPSTREAM}]),
        (400, "missing required field: upstream at proxy 2", "POST", "/populate", [new, {"name": "newer"}]),
        # Toxiproxy has no status for this but 500; its words are the system's.
        (500, "", "POST", proxies, {**new, "listen": taken}),
        (500, "", "POST", f"{proxies}/{proxy.name}", {"listen": taken}),
        (500, "", "POST", "/populate", [{**new, "listen": taken}]),
    ]:
        answer = ask_api(method, path, body, status).json()
        what = f"{method} {path} {short(body)}"
        extra = {"proxies"} if path == "/populate" else set()
        equal(f"{what}: its fields", set(answer) - extra, {"error", "status"})
        equal(f"{what}: the status in the body", answer["status"], status)
        said = answer["error"][: len(error)] if error.endswith(": ") or not error else answer["error"]
        equal(f"{what}: the error", said, error)
        if not answer["error"]:
            raise Failed(f"{what}: no words")
        equal(f"{what}: the proxies after it", raw("GET", "/proxies").json(), before)
    ask_api("GET", "/nothing", status=404)
    ask_api("DELETE", "/proxies", status=405)
    equal("a browser", http.get(f"{API}/proxies", headers={"User-Agent": "Mozilla/5.0"}, timeout=HANG).status_code, 403)
    equal("the proxies after it all", raw("GET", "/proxies").json(), before)
    served("after it all", proxy)
    proxy.destroy_toxic("there")
    shown("bad input: Toxiproxy's status and error each time, and nothing has changed")


def test(server):
    equal("SET", Redis().ask("SET", "big", BIG), b"+OK\r\n")
    proxies_come_and_go(server)
    proxy = server.create(upstream=UPSTREAM, name="redis")
    for toxic in (latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data):
        for stream in STREAMS:
            toxic(proxy, stream)
            equal(f"toxics after {toxic.__name__}", proxy.toxics(), {})
            shown(f"{toxic.__name__} {stream}: added, listed, felt, changed, felt, removed, gone")
    down_and_up(proxy)
    reset(server, proxy)
    on(server, proxy)
    bad_input(server, proxy)
    toxicity(proxy)
    server.destroy_all()


# --- How near --------------------------------------------------------------------------------------------------------


def measure(server):
    direct = Redis()
    direct.ask("SET", "big", BIG)
    proxy = server.create(upstream=UPSTREAM, name="measured")

    def pings():
        redis, times = Redis(proxy), []
        redis.ping()
        for _ in range(50):
            began = time.monotonic()
            redis.ping()
            times.append((time.monotonic() - began) * 1000)
        return times

    plain = statistics.median(pings())
    print(f"PING without a toxic: median {plain:.3f} ms\n")
    print(f"{'toxic':<24}{'asked':>12}{'median':>12}{'worst':>12}")
    for stream in STREAMS:
        for asked in (5, 50, 200):
            toxic = Toxic(proxy, "latency", stream, latency=asked, jitter=0)
            times = [time - plain for time in pings()]
            toxic.remove()
            median, worst = statistics.median(times), max(times)
            print(f"{'latency ' + stream:<24}{asked:>9} ms{median:>9.3f} ms{worst:>9.3f} ms")
    print(f"\n{'toxic':<24}{'asked':>12}{'measured':>12}{'of it':>12}")
    for stream in STREAMS:
        for asked in (100, 1000, 10_000):
            value = b"x" * (asked * 2000)
            direct.ask("SET", "two", value)
            redis = Redis(proxy)
            redis.ping()
            toxic = Toxic(proxy, "bandwidth", stream, rate=asked)
            began = time.monotonic()
            redis.ask("GET", "two") if stream == "downstream" else redis.ask("SET", "two", value)
            measured = len(value) / 1000 / (time.monotonic() - began)
            toxic.remove()
            print(f"{'bandwidth ' + stream:<24}{asked:>7} KB/s{measured:>7.0f} KB/s{measured / asked:>11.1%}")
    print()
    for stream in STREAMS:
        toxic = Toxic(proxy, "reset_peer", stream, timeout=0)
        redis = Redis(proxy)
        redis.send("PING")
        print(f"reset_peer {stream} is seen as {redis.end()[1]}")
        toxic.remove()
    direct.ask("DEL", "two")
    server.destroy(proxy)


def main():
    server = Toxiproxy()
    server.update_api_consumer(HOST, API_PORT)
    try:
        measure(server) if "--measure" in sys.argv else test(server)
    except Failed as failed:
        lines = [frame.lineno for frame in traceback.extract_tb(failed.__traceback__)]
        sys.exit(f"FAILED: {failed} (lines {lines})")


if __name__ == "__main__":
    main()
