"""pymemcache, unchanged, before clients that share trunks.

    pymemcache_py.py PROXY_PORT

Prints a line for each thing that it has shown.
"""

import sys

from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError

from checks import HANG, at_once, equal, shown

PORT = int(sys.argv[1])
BIG = bytes(ord("a") + n * n % 25 for n in range(300_000))


def client(**settings):
    return Client(("127.0.0.1", PORT), timeout=HANG, connect_timeout=HANG, no_delay=True, **settings)


def values(c, key):
    equal("set", c.set(f"{key}a", b"1", noreply=False), True)
    equal("get", (c.get(f"{key}a"), c.get(f"{key}nothing"), c.get(f"{key}nothing", b"d")), (b"1", None, b"d"))
    equal("add", (c.add(f"{key}a", b"2", noreply=False), c.add(f"{key}b", b"", noreply=False)), (False, True))
    equal("replace", (c.replace(f"{key}a", b"3", noreply=False), c.replace(f"{key}c", b"3", noreply=False)), (True, False))
    equal("append, prepend", (c.append(f"{key}a", b"4", noreply=False), c.prepend(f"{key}a", b"2", noreply=False)), (True, True))
    equal("what came of it", c.get(f"{key}a"), b"234")
    equal("a big one", (c.set(f"{key}big", BIG, noreply=False), c.get(f"{key}big")), (True, BIG))
    lines = b"END\r\nVALUE x 0 1\r\nSTORED\r\n"
    equal("what looks like replies", (c.set(f"{key}lines", lines, noreply=False), c.get(f"{key}lines")), (True, lines))


def many(c, key):
    some = {f"{key}{n}": b"%d" % n for n in range(200)}
    equal("set_many", c.set_many(some, noreply=False), [])
    equal("get_many", c.get_many(list(some) + [f"{key}nothing"]), some)
    equal("delete_many", c.delete_many(list(some), noreply=False), True)
    equal("then", c.get_many(list(some)), {})


def cas(c, key):
    c.set(f"{key}c", b"1", noreply=False)
    value, unique = c.gets(f"{key}c")
    equal("gets", value, b"1")
    equal("cas", c.cas(f"{key}c", b"2", unique, noreply=False), True)
    equal("cas again", c.cas(f"{key}c", b"3", unique, noreply=False), False)
    equal("cas of nothing", c.cas(f"{key}nothing", b"3", unique, noreply=False), None)
    equal("what is left", c.gets_many([f"{key}c"])[f"{key}c"][0], b"2")


def numbers(c, key):
    c.set(f"{key}n", b"10", noreply=False)
    equal("incr, decr", (c.incr(f"{key}n", 5), c.decr(f"{key}n", 1), c.decr(f"{key}n", 100)), (15, 14, 0))
    equal("incr of nothing", c.incr(f"{key}nothing", 1), None)
    c.set(f"{key}t", b"text", noreply=False)
    try:
        c.incr(f"{key}t", 1)
        raise AssertionError("incr of a text is no error")
    except MemcacheClientError as error:
        equal("incr of a text", b"non-numeric" in error.args[0], True)
    try:
        c.set(f"{key}t", b"x" * 2_000_000, noreply=False)
        raise AssertionError("two megabytes were stored")
    except MemcacheServerError as error:
        equal("two megabytes", error.args[0], b"object too large for cache")
    # pymemcache closes behind an error: this is another connection.
    equal("then", c.get(f"{key}n").strip(), b"0")


def without_replies(c, key):
    for n in range(300):
        c.set(f"{key}{n % 7}", b"%d" % n, noreply=True)
        if n % 3 == 0:
            c.delete(f"{key}{n % 7}", noreply=True)
        if n % 50 == 0:
            equal("in between", c.get(f"{key}nothing"), None)
    equal("set, without replies", c.get_many([f"{key}{n}" for n in range(7)]),
          {f"{key}{n % 7}": b"%d" % n for n in range(293, 300) if n % 3})
    c.set(f"{key}n", b"1", noreply=True)
    c.incr(f"{key}n", 4, noreply=True)
    c.touch(f"{key}n", 1000, noreply=True)
    c.append(f"{key}n", b"0", noreply=True)
    c.add(f"{key}n", b"9", noreply=True)
    equal("what came of it", c.get(f"{key}n"), b"50")


def ends(c, key):
    c.set(f"{key}d", b"1", noreply=False)
    equal("touch", (c.touch(f"{key}d", 1000, noreply=False), c.touch(f"{key}nothing", 1, noreply=False)), (True, False))
    equal("delete", (c.delete(f"{key}d", noreply=False), c.delete(f"{key}d", noreply=False)), (True, False))
    c.set(f"{key}d", b"1", expire=-1, noreply=False)
    equal("expired", c.get(f"{key}d"), None)


def others(c, key):
    equal("version", c.version().count(b"."), 2)
    equal("stats", c.stats()[b"threads"] > 0, True)
    c.set(f"{key}f", b"1", noreply=False)
    equal("flush_all", c.flush_all(noreply=False), True)
    equal("then", c.get(f"{key}f"), None)


def main():
    alone = (values, many, cas, numbers, without_replies, ends)
    c = client()
    for test in alone + (others,):
        test(c, f"{test.__name__}-")
        shown(f"pymemcache: {test.__name__}")
    c.close()

    # Of one that is shared by threads, what asks for no reply may overtake what was asked before it.
    pooled = PooledClient(("127.0.0.1", PORT), max_pool_size=20, timeout=HANG, connect_timeout=HANG)
    at_once([lambda test=test, n=n: test(pooled, f"{test.__name__}-{n}-") for test in (values, many, cas, ends) for n in range(4)])
    at_once([lambda test=test, n=n: test(client(), f"{test.__name__}={n}-") for test in alone for n in range(3)])
    shown("pymemcache: many at once")
    c = client()
    c.get("a")
    c.quit()
    shown("pymemcache: quit")


main()
