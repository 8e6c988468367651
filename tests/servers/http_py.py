"""requests or httpx, unchanged, before clients that share trunks.

    http_py.py requests|httpx PROXY_PORT_OF_NGINX PROXY_PORT_OF_THE_PYTHON_SERVER

Prints a line for each thing that it has shown.
"""

import sys

from checks import HANG, at_once, equal, shown

NAME, NGINX, OTHER = sys.argv[1], f"http://127.0.0.1:{sys.argv[2]}", f"http://127.0.0.1:{sys.argv[3]}"
SMALL = b"a small file\n"
BIG = bytes(ord("a") + n * n % 25 for n in range(3_000_000))

if NAME == "requests":
    import requests

    def session():
        made = requests.Session()
        made.trust_env = False  # no HTTP proxy on the way, whatever the environment says
        return made

    def ask(s, method, url, **more):
        if "content" in more:
            more["data"] = more.pop("content")
        return s.request(method, url, timeout=HANG, **more)

    def stream(s, url):
        with s.get(url, stream=True, timeout=HANG) as response:
            yield from response.iter_content(10_000)
else:
    import httpx

    def session():
        return httpx.Client(trust_env=False, timeout=HANG)

    def ask(s, method, url, **more):
        return s.request(method, url, **more)

    def stream(s, url):
        with s.stream("GET", url) as response:
            yield from response.iter_bytes(10_000)


def kept_alive(s):
    for _ in range(50):
        response = ask(s, "GET", f"{NGINX}/small")
        equal("GET", (response.status_code, response.content), (200, SMALL))
    response = ask(s, "GET", f"{NGINX}/nothing")
    equal("GET of nothing", (response.status_code, b"404 Not Found" in response.content), (404, True))
    equal("behind it", ask(s, "GET", f"{NGINX}/small").content, SMALL)


def heads(s):
    for path, length in (("small", "13"), ("big", "10485760")):
        for _ in range(3):
            response = ask(s, "HEAD", f"{NGINX}/{path}")
            equal("HEAD", (response.status_code, response.headers["Content-Length"], response.content), (200, length, b""))
    equal("behind it", ask(s, "GET", f"{NGINX}/small").content, SMALL)


def ranges(s):
    response = ask(s, "GET", f"{NGINX}/small", headers={"Range": "bytes=2-6"})
    equal("a range", (response.status_code, response.headers["Content-Range"], response.content), (206, "bytes 2-6/13", b"small"))
    response = ask(s, "GET", f"{NGINX}/small", headers={"Range": "bytes=100-"})
    equal("a range of nothing", (response.status_code, response.headers["Content-Range"]), (416, "bytes */13"))
    response = ask(s, "GET", f"{NGINX}/small", headers={"Range": "bytes=0-0,2-6"})
    equal("two ranges", (response.status_code, response.content.count(b"Content-Range: ")), (206, 2))


def unchanged(s):
    tag = ask(s, "GET", f"{NGINX}/small").headers["ETag"]
    response = ask(s, "GET", f"{NGINX}/small", headers={"If-None-Match": tag})
    equal("304", (response.status_code, response.content), (304, b""))
    equal("behind it", ask(s, "GET", f"{NGINX}/small").content, SMALL)


def uploads(s, place="file"):
    url = f"{NGINX}/uploaded/{NAME}-{place}"
    equal("PUT", ask(s, "PUT", url, content=BIG).status_code, 201)
    equal("it back", ask(s, "GET", url).content, BIG)
    pieces = [BIG[at:at + 70_000] for at in range(0, len(BIG), 70_000)]
    equal("PUT, chunked", ask(s, "PUT", url, content=iter(pieces[::-1])).status_code, 204)
    equal("it back in pieces", b"".join(stream(s, url)), b"".join(pieces[::-1]))
    equal("PUT of nothing", ask(s, "PUT", url, content=b"").status_code, 204)
    equal("nothing back", ask(s, "GET", url).content, b"")


def streams(s):
    equal("a big file in pieces", sum(map(len, stream(s, f"{NGINX}/big"))), 10 << 20)
    got = stream(s, f"{NGINX}/big")
    next(got)
    got.close()
    equal("behind one that was left", ask(s, "GET", f"{NGINX}/small").content, SMALL)
    equal("chunks", b"".join(stream(s, f"{OTHER}/chunked/300")), b"x" * (300 * 301 // 2))


def others(s):
    for _ in range(5):
        response = ask(s, "POST", f"{OTHER}/a?b=c", content=b"body", headers={"X-One": "1"})
        equal("POST", response.text, "POST /a?b=c\nX-One: 1\n4 bytes\nbody")
        response = ask(s, "POST", f"{OTHER}/a", content=iter([b"a ", b"chunked ", b"body"]))
        equal("POST, chunked", response.text, "POST /a\n14 bytes\na chunked body")
        equal("PATCH", ask(s, "PATCH", f"{OTHER}/p", content=b"").text, "PATCH /p\n0 bytes\n")
        equal("DELETE", ask(s, "DELETE", f"{OTHER}/p").text, "DELETE /p\n0 bytes\n")
        equal("OPTIONS", ask(s, "OPTIONS", f"{OTHER}/p").text, "OPTIONS /p\n0 bytes\n")
        equal("204", ask(s, "GET", f"{OTHER}/status/204").status_code, 204)
        equal("503", ask(s, "GET", f"{OTHER}/status/503").status_code, 503)
        equal("until the close", ask(s, "GET", f"{OTHER}/until-close").text, "until the close\n")
    response = ask(s, "GET", f"{OTHER}/a", headers={"Connection": "close"})
    equal("the last one", (response.text, response.headers["Connection"]), ("GET /a\n0 bytes\n", "close"))


def main():
    with session() as s:
        for test in (kept_alive, heads, ranges, unchanged, uploads, streams, others):
            test(s)
            shown(f"{NAME}: {test.__name__}")

    def everything(number):
        with session() as s:
            kept_alive(s)
            uploads(s, number)
            others(s)

    at_once([lambda number=number: everything(number) for number in range(12)])
    shown(f"{NAME}: twelve at once")


main()
