"""A fork waits for locks, and never for a thread that waits for the fork."""

from __future__ import annotations

import pytest

from tests.indexes.storage.stored_index import python

FORK_DURING_A_COLLECTION = """
import gc, threading, weakref
from semcut.indexes.storage import fork_waits

signal.alarm(10)
guard, of_the_garbage = fork_waits._guard, fork_waits.ForkWait()

def fork():
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        os._exit(0)

forker = threading.Thread(target=fork)

class Garbage:
    def __del__(self):
        forker.start()
        while guard.acquire(blocking=False):  # until the other thread waits, in its fork
            guard.release()
        with of_the_garbage():
            print("finalized", flush=True)

def leave_garbage():
    garbage = Garbage()
    garbage.itself = garbage

class CollectingSet(weakref.WeakSet):
    def add(self, lock):
        gc.collect()
        super().add(lock)

class CollectingLock:
    def __init__(self, lock, when):
        self.lock, self.when = lock, when

    def __enter__(self):
        self.lock.acquire()
        if self.when == "taken":
            gc.collect()

    def __exit__(self, *error):
        if self.when == "released":
            gc.collect()
        self.lock.release()

gc.disable()
"""


def forks(script: str, *arguments: object) -> None:
    done = python(f"{FORK_DURING_A_COLLECTION}{script}\nforker.join()", *arguments)
    assert (done.returncode, done.stdout) == (0, "finalized\n"), done.stderr


def test_garbage_that_is_finalized_while_a_lock_is_listed():
    forks("""
fork_waits._LOCKS = CollectingSet(fork_waits._LOCKS)
leave_garbage()
fork_waits.ForkWait()
""")


@pytest.mark.parametrize("when", ["taken", "released"])
def test_garbage_that_is_finalized_while_a_lock_is_taken_or_released(when):
    forks(
        """
wait = fork_waits.ForkWait()
wait._lock = CollectingLock(wait._lock, sys.argv[1])
leave_garbage()
with wait():
    pass
""",
        when,
    )
