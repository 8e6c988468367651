"""What the scripts of this folder have in common."""

import concurrent.futures

HANG = 30  # seconds: nothing that is served takes as long, on any machine


def shown(what):
    print(what, flush=True)


def equal(what, seen, expected):
    if seen != expected:
        raise AssertionError(f"{what}: expected {short(expected)}, seen {short(seen)}")


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({len(value)} long)"


def at_once(runs):
    """Runs them all at the same time, each in a thread; returns what each gave, or raises what the first one raised."""
    with concurrent.futures.ThreadPoolExecutor(len(runs)) as threads:
        return [future.result() for future in [threads.submit(run) for run in runs]]
