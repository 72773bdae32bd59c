"""Jobs that other processes do on a store: `python -m tests.llamaindex_prag.store.worker JOB PATH NAME`."""

import itertools
import sys

import numpy as np

from llamaindex_prag.store import ownership
from tests.llamaindex_prag.store.made import LAYOUT, made_adapter, made_key, opened


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write(path, name):
    """Put adapters forever, overwriting and removing some; print each one only once it is durable."""
    with opened(path, map_size=1 << 20) as store:
        for number in itertools.count():
            text = f"{name} {number}"
            store.put(made_key(text), made_adapter(number), {"number": number}, owners=[f"document {text}"])
            say(f"put {number}")
            if number % 5 == 4:
                say(f"removing {number - 2}")
                store.remove_document(f"document {name} {number - 2}")
                say(f"removed {number - 2}")


def read(path, name):
    """Read all adapters until the store has the key `name`; every value must be complete."""
    out, reads = np.empty(LAYOUT.size, np.float32), 0
    with opened(path, readonly=True) as store:
        say("reading")
        while made_key(name) not in store:
            keys = store.keys()
            for key in keys:
                record = store.record(key)
                store.read_into(key, out)
                np.testing.assert_array_equal(out, made_adapter(record["number"]).buffer)
                reads += 1
    say(f"read {reads}")


def create(path, name):
    """Create the store at the moment when stdin ends, and put one adapter."""
    say("ready")
    sys.stdin.readline()
    with opened(path) as store:
        store.put(made_key(name), made_adapter(), {})


def hold(path, name):
    """Keep the store open until stdin ends."""
    with opened(path, readonly=True) as store:
        say(f"holding {len(store)} {store.generation}")
        sys.stdin.readline()
        say(f"held {len(store)} {store.generation}")


def lock(path, name):
    """Keep the writers' lock until stdin ends, in a transaction by which another index holds the document `name`."""
    with opened(path) as store:

        def change(rows):
            ownership.hold(rows, name, "other")
            say("locked")
            sys.stdin.readline()

        store._env.write(change)
        say("unlocked")


def fill(path, name):
    """Put adapters until the files may not grow any further."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    with opened(path, map_size=1 << 20) as store:
        for number in itertools.count():
            try:
                store.put(made_key(f"{name} {number}"), made_adapter(number), {"number": number})
            except Exception as error:  # noqa: BLE001
                say(f"{type(error).__name__}: {error}")
                break
            say(f"put {number}")
        assert store.get(made_key(f"{name} 0")) is not None
        assert store.verify().ok
        say(f"kept {len(store)}")


if __name__ == "__main__":
    assert "torch" not in sys.modules
    {"write": write, "create": create, "read": read, "hold": hold, "lock": lock, "fill": fill}[sys.argv[1]](
        *sys.argv[2:]
    )
    assert "torch" not in sys.modules
