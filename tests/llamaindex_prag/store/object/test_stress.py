"""Several processes on one store, behind a server whose requests fail: nothing is lost, damaged or served too long."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.llamaindex_prag.store.made import made_adapter, made_key, shared
from tests.llamaindex_prag.store.object.servers import options, sometimes
from tests.llamaindex_prag.store.object.stressed import DELAY, TEXTS, number


def stressed(bucket, proxy, tmp_path, *, processes, calls, share):
    """Run the processes; return their calls in the order in which they began, and how many requests failed."""
    url, given = f"s3://{bucket}/store", options(proxy.server_address[1])
    shared(url, storage_options=given, cache=tmp_path / "first").close()
    proxy.fault = sometimes(share, seed=7)
    command = [sys.executable, "-m", "tests.llamaindex_prag.store.object.stressed", url, json.dumps(given)]
    workers = [
        subprocess.Popen(
            [*command, f"host{i}", str(calls), str(tmp_path / f"cache-{i}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(processes)
    ]
    try:
        outputs = [worker.communicate(timeout=1500) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert all(worker.returncode == 0 for worker in workers), outputs
    proxy.fault = lambda method, path: None
    made = [json.loads(line) for output, _ in outputs for line in output.splitlines()]
    assert len(made) == processes * calls
    return sorted(made, key=lambda one: one["began"]), sum(fault is not None for _, _, fault in proxy.requests)


def uses(calls, text):
    """Return when documents used a text: from the beginning of the call, and to its end; None if it may still.

    A call that failed may have taken effect: one that adds counts, one that removes does not end anything.
    """
    found = []
    for i, call in enumerate(calls):
        if call["text"] == text and call["act"] in {"put", "own"}:
            later = (c for c in calls[i + 1 :] if c["document"] == call["document"] and c["act"] == "remove")
            found.append((call, next((c["ended"] for c in later if c["outcome"] == "done"), None)))
    return found


def check(calls, store):
    outcomes = [call["outcome"] for call in calls]
    assert not [o for o in outcomes if o.startswith(("damaged", "wrong"))]
    for call in calls:
        if call["outcome"] == "found":  # some document used it, at most DELAY before the call
            spans = uses(calls, call["text"])
            assert any(
                one["began"] <= call["ended"] and (end is None or end > call["began"] - DELAY) for one, end in spans
            ), f"{call} found the adapter of a removed document"
    for text in (f"text {i}" for i in range(TEXTS)):
        spans = uses(calls, text)
        holding = {
            one["document"]
            for one, _ in spans
            if one["act"] == "put" and one["outcome"] == "done" and not removed_after(calls, one)
        }
        assert holding <= set(store.owners(made_key(text).text))
        if holding:
            np.testing.assert_array_equal(store.get(made_key(text)).buffer, made_adapter(number(text)).buffer)
        elif all(end is not None for _, end in spans):
            assert store.get(made_key(text)) is None
            assert store.owners(made_key(text).text) == []
    assert store.verify().ok


def removed_after(calls, put):
    """Return whether the document may have been removed after a put, by a call that succeeded or failed."""
    later = calls[calls.index(put) + 1 :]
    return any(c["document"] == put["document"] and c["act"] == "remove" for c in later)


def run(bucket, proxy, tmp_path, **sizes):
    calls, faults = stressed(bucket, proxy, tmp_path, **sizes)
    given = {"storage_options": options(proxy.server_address[1]), "cache": tmp_path / "last"}
    with shared(f"s3://{bucket}/store", removal_delay=0.0, **given) as store:
        check(calls, store)
    assert faults > 0
    return calls


def test_two_processes_with_faults(bucket, proxy, tmp_path):
    run(bucket, proxy, tmp_path, processes=2, calls=30, share=0.05)


@pytest.mark.slow
def test_a_thousand_calls_of_four_processes_with_faults(bucket, proxy, tmp_path):
    calls = run(bucket, proxy, tmp_path, processes=4, calls=250, share=0.03)
    assert len({call["outcome"].partition(":")[0] for call in calls} & {"done", "found", "missing"}) == 3
