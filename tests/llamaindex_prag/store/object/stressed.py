"""One process of the stress test: random calls on a shared store, each written down with its time and outcome."""

import json
import random
import sys
import time

import numpy as np

from llamaindex_prag.errors import AdapterDamagedError, StoreError
from llamaindex_prag.store.object import log as records
from tests.llamaindex_prag.store.made import made_adapter, made_key, shared

TEXTS = 6
DOCUMENTS = 4
DELAY = 1.0


def work(url, options, name, calls, cache):
    """Make calls; only this process changes documents that begin with its name, and all processes share the texts."""
    rng = random.Random(name)
    records.MANY, records.SETTLED = 12, 20.0
    given = {"storage_options": json.loads(options), "removal_delay": DELAY, "cache": cache, "timeout": 1.0}
    with shared(url, attempts=6, **given) as store:
        for _ in range(int(calls)):
            act = rng.choices(["put", "remove", "get", "own", "gc"], [30, 25, 40, 4, 1])[0]
            text, document = f"text {rng.randrange(TEXTS)}", f"{name} {rng.randrange(DOCUMENTS)}"
            began, outcome = time.monotonic(), "done"
            try:
                outcome = call(store, act, text, document)
            except AdapterDamagedError as error:
                outcome = f"damaged: {error}"
            except StoreError as error:
                outcome = f"failed: {error}"
            said = {"act": act, "text": text, "document": document, "outcome": outcome}
            sys.stdout.write(json.dumps(said | {"began": began, "ended": time.monotonic()}) + "\n")
            sys.stdout.flush()


def call(store, act, text, document):
    if act == "put":
        store.put(made_key(text), made_adapter(number(text)), {}, owners=[document])
    elif act == "remove":
        store.remove_document(document)
    elif act == "own":
        store.own_also(document, [made_key(text).text])
    elif act == "gc":
        store.gc()
    else:
        found = store.get(made_key(text))
        if found is None:
            return "missing"
        return "found" if np.array_equal(found.buffer, made_adapter(number(text)).buffer) else "wrong values"
    return "done"


def number(text):
    return int(text.split()[1])


if __name__ == "__main__":
    work(*sys.argv[1:])
