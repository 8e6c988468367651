"""redis-py, unchanged, before clients that share trunks.

    redis_py.py PROXY_PORT

Prints a line for each thing that it has shown. It is run as it comes in RESP2; in RESP3, whose HELLO gives each
connection a trunk of its own; and so that it says nothing of itself, not even by CLIENT SETINFO.
"""

import sys
import threading

import redis

from checks import HANG, at_once, equal, shown

PORT = int(sys.argv[1])
BIG = "".join(chr(ord("a") + n * n % 25) for n in range(300_000))


def client(**settings):
    return redis.Redis(port=PORT, decode_responses=True, socket_timeout=HANG, **settings)


def strings(r, key):
    equal("SET", r.set(f"{key}:s", "a"), True)
    equal("SET NX", r.set(f"{key}:s", "b", nx=True), None)
    equal("SET GET", r.set(f"{key}:s", "b", get=True), "a")
    equal("APPEND", r.append(f"{key}:s", "c"), 2)
    equal("GET", r.get(f"{key}:s"), "bc")
    equal("GET of nothing", r.get(f"{key}:nothing"), None)
    equal("INCRBY", [r.incrby(f"{key}:n", 5), r.decr(f"{key}:n")], [5, 4])
    equal("INCRBYFLOAT", r.incrbyfloat(f"{key}:f", 1.5), 1.5)
    equal("MSET, MGET", (r.mset({f"{key}:1": "x", f"{key}:2": ""}), r.mget(f"{key}:1", f"{key}:2")), (True, ["x", ""]))
    equal("a big one", (r.set(f"{key}:big", BIG), r.get(f"{key}:big")), (True, BIG))
    equal("DEL", r.delete(f"{key}:big", f"{key}:nothing"), 1)
    try:
        r.incr(f"{key}:s")
        raise AssertionError("INCR of a text is no error")
    except redis.ResponseError as error:
        equal("an error", str(error), "value is not an integer or out of range")


def others(r, key):
    equal("HSET", r.hset(f"{key}:h", mapping={"a": "1", "b": "2"}), 2)
    equal("HGETALL", r.hgetall(f"{key}:h"), {"a": "1", "b": "2"})
    equal("RPUSH, LRANGE", (r.rpush(f"{key}:l", *"abc"), r.lrange(f"{key}:l", 0, -1)), (3, ["a", "b", "c"]))
    equal("SADD, SMEMBERS", (r.sadd(f"{key}:set", *"ab"), set(r.smembers(f"{key}:set"))), (2, {"a", "b"}))
    equal("ZADD", r.zadd(f"{key}:z", {"a": 1, "b": 2.5}), 2)
    equal("ZSCORE", [r.zscore(f"{key}:z", "b"), r.zscore(f"{key}:z", "c")], [2.5, None])
    equal("XADD", r.xadd(f"{key}:x", {"field": "value"}, id="1-1"), "1-1")
    equal("XRANGE", r.xrange(f"{key}:x"), [("1-1", {"field": "value"})])
    equal("SCAN", len(set(r.scan_iter(f"{key}:*", count=3))), len(r.keys(f"{key}:*")))


def pipelines(r, key):
    with r.pipeline(transaction=False) as pipe:
        for n in range(500):
            pipe.set(f"{key}:{n}", n).get(f"{key}:{n}")
        equal("a pipeline", pipe.execute(), [part for n in range(500) for part in (True, str(n))])
    with r.pipeline(transaction=False) as pipe:
        pipe.set(f"{key}:t", "text").incr(f"{key}:t").get(f"{key}:t")
        first, error, last = pipe.execute(raise_on_error=False)
        equal("around an error in a pipeline", (first, type(error), last), (True, redis.ResponseError, "text"))
    with r.pipeline() as pipe:
        equal("a transaction", pipe.incr(f"{key}:i").incr(f"{key}:i").execute(), [1, 2])
    equal("behind it", r.get(f"{key}:i"), "2")
    with r.pipeline() as pipe:
        pipe.set(f"{key}:i", "7").execute_command("NOTHING")
        try:
            pipe.execute()
            raise AssertionError("a transaction with an unknown command was executed")
        except redis.ResponseError:
            equal("behind a transaction that is none", r.get(f"{key}:i"), "2")


def watched(r, key):
    """Twenty increments by each of four, by WATCH, GET, MULTI, SET, EXEC: none is lost, though they are in each other's way."""
    tries = []

    def increment():
        for _ in range(20):
            def add(pipe):
                tries.append(1)
                value = int(pipe.get(f"{key}:w") or 0)
                pipe.multi()
                pipe.set(f"{key}:w", value + 1)

            equal("EXEC", r.transaction(add, f"{key}:w"), [True])

    at_once([increment] * 4)
    equal("80 increments", r.get(f"{key}:w"), "80")
    with r.pipeline() as pipe:
        pipe.watch(f"{key}:w")
        r.set(f"{key}:w", "other")
        pipe.multi()
        pipe.set(f"{key}:w", "mine")
        try:
            pipe.execute()
            raise AssertionError("somebody else's change went unseen")
        except redis.WatchError:
            equal("what the other has set", r.get(f"{key}:w"), "other")
    with r.pipeline() as pipe:
        pipe.watch(f"{key}:w")
        pipe.unwatch()
        r.set(f"{key}:w", "again")
        pipe.multi()
        equal("EXEC behind UNWATCH", pipe.get(f"{key}:w").execute(), ["again"])


def next_message(subscriber):
    message = subscriber.get_message(timeout=HANG)
    return message and (message["type"], message["channel"], message["data"])


def published(r, key):
    with r.pubsub() as subscriber:
        subscriber.subscribe(f"{key}:a", f"{key}:b")
        subscriber.psubscribe(f"{key}:p*")
        for number, (kind, channel) in enumerate([("subscribe", "a"), ("subscribe", "b"), ("psubscribe", "p*")], 1):
            equal("subscribed", next_message(subscriber), (kind, f"{key}:{channel}", number))
        equal("PUBLISH", [r.publish(f"{key}:{to}", to) for to in ("a", "b", "pattern", "c")], [1, 1, 1, 0])
        equal("a message", next_message(subscriber), ("message", f"{key}:a", "a"))
        equal("another", next_message(subscriber), ("message", f"{key}:b", "b"))
        equal("by the pattern", next_message(subscriber), ("pmessage", f"{key}:pattern", "pattern"))
        subscriber.ping("hello")
        # In RESP3 it is no push, and redis-py does not take it for a message.
        equal("PONG", "hello" in subscriber.parse_response(timeout=HANG), True)
        subscriber.unsubscribe(f"{key}:a")
        equal("unsubscribed", next_message(subscriber), ("unsubscribe", f"{key}:a", 2))
        equal("PUBLISH to nobody", r.publish(f"{key}:a", "x"), 0)


def blocking(r, key):
    """Five wait at once, and each gets one of what is pushed. Meanwhile others are served."""
    popped = []
    waiting = threading.Barrier(6)

    def pop():
        waiting.wait(HANG)
        popped.append(tuple(r.blpop([f"{key}:none", f"{key}:q"], timeout=HANG)))

    def push():
        waiting.wait(HANG)
        for n in range(5):
            r.rpush(f"{key}:q", n)
            equal("beside those who wait", r.incr(f"{key}:beside"), n + 1)

    at_once([push] + [pop] * 5)
    equal("popped", sorted(popped), [(f"{key}:q", str(n)) for n in range(5)])
    equal("BLPOP of nothing", r.blpop(f"{key}:none", timeout=0.01), None)
    r.rpush(f"{key}:from", "a")
    equal("BLMOVE", r.blmove(f"{key}:from", f"{key}:to", HANG, "LEFT", "RIGHT"), "a")
    r.zadd(f"{key}:z", {"a": 1})
    equal("BZPOPMIN", list(r.bzpopmin(f"{key}:z", HANG)), [f"{key}:z", "a", 1.0])


def scripts(r, key):
    script = r.register_script("return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2]}")
    # The first is answered by NOSCRIPT; then redis-py loads it.
    equal("EVALSHA", [script([f"{key}:e"], [n, "x"]) for n in (1, 2)], [[1, "x"], [3, "x"]])
    equal("EVAL", r.eval("return {1, 2, {3, 'x'}}", 0), [1, 2, [3, "x"]])
    try:
        r.eval("return redis.error_reply('MINE own')", 0)
        raise AssertionError("a script's error is none")
    except redis.ResponseError as error:
        equal("a script's error", str(error), "MINE own")


def databases(r, key):
    other = client(db=3, protocol=r.get_connection_kwargs().get("protocol"))
    other.set(f"{key}:d", "in 3")
    r.set(f"{key}:d", "in 0")
    equal("the two databases", (other.get(f"{key}:d"), r.get(f"{key}:d")), ("in 3", "in 0"))
    other.close()


def at_once_all(make, key):
    """Six clients, each of which does everything with keys of its own."""
    def one(number):
        r = make()
        strings(r, f"{key}{number}")
        others(r, f"{key}{number}")
        pipelines(r, f"{key}{number}")
        r.close()

    at_once([lambda number=number: one(number) for number in range(6)])


def main():
    for name, settings in [
        ("as it comes in RESP2", {"protocol": 2}),
        ("as it comes in RESP3", {"protocol": 3}),
        ("that says nothing of itself", {"protocol": 2, "driver_info": None}),
    ]:
        for test in (strings, others, pipelines, watched, published, blocking, scripts, databases):
            r = client(**settings)
            test(r, f"{test.__name__}:{name}")
            r.close()
            shown(f"redis-py {name}: {test.__name__}")
        at_once_all(lambda settings=settings: client(**settings), f"at once:{name}")
        shown(f"redis-py {name}: six at once")


main()
