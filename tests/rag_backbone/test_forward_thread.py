"""Forwards in a thread of their own: results, errors and interrupts reach who asked, and no thread is left behind."""

import gc
import subprocess
import sys
import threading
import time

import pytest
import torch

from rag_backbone import forward_thread
from rag_backbone.forward_thread import ForwardThread, release_team, team_released


@pytest.fixture
def own(monkeypatch):
    """A thread, whatever the OpenMP library."""
    if forward_thread._gnu_openmp() is None:

        class Library:
            def omp_pause_resource_all(self, _):
                return 0

        monkeypatch.setattr(forward_thread, "_gnu_openmp", Library)
    return ForwardThread()


def test_all_calls_are_made_in_one_thread_in_inference_mode(own):
    def call():
        return threading.current_thread(), torch.is_inference_mode_enabled()

    found = [own.run(call)]
    threads = [threading.Thread(target=lambda: found.append(own.run(call))) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(set(found)) == 1
    assert found[0][0] is not threading.current_thread()
    assert found[0][1]


def test_a_call_from_the_thread_itself_is_made_at_once(own):
    assert own.run(lambda: own.run(threading.current_thread)) is own.run(threading.current_thread)


def test_an_error_is_raised_where_it_was_asked_and_the_thread_goes_on(own):
    def fail():
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            own.run(fail)
    assert own.run(lambda: 5) == 5


def test_an_interrupt_waits_for_the_end_of_the_call(own, monkeypatch):
    class Interrupt(BaseException):
        pass

    class Interrupted(threading.Event):
        """An event whose first waiting is interrupted."""

        first = True

        def wait(self, timeout=None):
            if self.first:
                self.first = False
                raise Interrupt
            return super().wait(timeout)

    done = []

    def call():
        time.sleep(0.1)
        done.append(1)

    own.run(lambda: None)
    monkeypatch.setattr(forward_thread.threading, "Event", Interrupted)
    with pytest.raises(Interrupt):
        own.run(call)
    assert done == [1]


@pytest.mark.usefixtures("own")
def test_the_thread_ends_with_its_owner():
    own = ForwardThread()
    thread = own.run(threading.current_thread)
    del own
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_without_gnu_openmp_who_asks_computes(monkeypatch):
    monkeypatch.setattr(forward_thread, "_gnu_openmp", lambda: None)
    assert ForwardThread().run(threading.current_thread) is threading.current_thread()
    release_team()


@pytest.mark.skipif(forward_thread._gnu_openmp() is None, reason="PyTorch has another OpenMP here")
def test_a_thread_gives_back_its_workers():
    """In a process of its own: what other tests have started does not count."""
    script = """
import os, time, torch
from rag_backbone.forward_thread import ForwardThread, release_team, team_released
torch.set_num_threads(3)
def tasks(wanted):
    end = time.monotonic() + 5  # workers end in their own time
    while (found := len(os.listdir("/proc/self/task"))) != wanted and time.monotonic() < end:
        time.sleep(0.001)
    return found
compute = lambda: torch.randn(600, 600) @ torch.randn(600, 600)
compute()  # starts what else there is
release_team()
time.sleep(0.1)
before = len(os.listdir("/proc/self/task"))
compute()
assert tasks(before + 2) == before + 2
own = ForwardThread()
own.run(compute)
# This thread's two have gone; there is the other one, which has given back its own too, as it has nothing to do.
assert tasks(before + 1) == before + 1
with team_released():
    compute()
assert tasks(before + 1) == before + 1
own.run(compute)
own.rest()
assert tasks(before + 1) == before + 1
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "ended\n", ended.stderr


def test_what_is_computed_under_it_may_fail():
    with pytest.raises(ValueError, match="no"), team_released():
        raise ValueError("no")
