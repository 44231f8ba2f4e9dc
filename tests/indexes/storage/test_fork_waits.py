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


def test_a_lock_can_be_made_in_a_child_whatever_threads_were_making():
    done = python("""
import threading
from semcut.indexes.storage import fork_waits

begun = threading.Event()

def lists():
    with fork_waits._holding(fork_waits._listing):
        begun.set()
        threading.Event().wait()

class Last:
    def acquire(self, blocking):
        if not begun.is_set():
            threading.Thread(target=lists, daemon=True).start()
            begun.wait(0.3)  # the thread waits, until the fork is over
        return True

    def release(self):
        pass

fork_waits._LOCKS = [Last()]
child = os.fork()
if not child:
    fork_waits._LOCKS = set()
    signal.alarm(10)
    with fork_waits.ForkWait()():
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
""")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


def test_ctrl_c_during_a_fork_leaves_no_lock_held():
    done = python("""
import random, threading, time
from semcut.indexes.storage import fork_waits

waits = [fork_waits.ForkWait() for _ in range(20)]
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted = []
sys.unraisablehook = interrupted.append
for _ in range(150):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
            if child := os.fork():
                os.waitpid(child, 0)
            else:
                os._exit(0)
            time.sleep(1e-3)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted.append(None)

def free():
    for lock in (fork_waits._guard, fork_waits._listing, *(wait._lock for wait in waits)):
        assert lock.acquire(timeout=5)
    print("free", len(interrupted) > 0)

other = threading.Thread(target=free)
other.start()
other.join()

""")
    assert (done.returncode, done.stdout) == (0, "free True\n"), done.stderr


def test_a_finalizer_waits_for_no_lock():
    """The garbage collector can run it in a thread for which a fork waits, and Ctrl-C can end it in any line."""
    done = python("""
import threading
from semcut.indexes.storage import fork_waits

signal.alarm(20)
wait, closed = fork_waits.ForkWait(), []
with fork_waits._guard, wait._lock:
    other = threading.Thread(target=wait.call_soon, args=(lambda: closed.append(True),))
    other.start()
    other.join()
assert not closed
with fork_waits.ForkWait()():
    print(closed, flush=True)
""")
    assert (done.returncode, done.stdout) == (0, "[True]\n"), done.stderr
