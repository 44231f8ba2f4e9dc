"""A fork waits for locks, and never for a thread that waits for the fork."""

from __future__ import annotations

import pytest

from tests.indexes.storage.stored_index import python

FORK_DURING_A_COLLECTION = """
import gc, threading
from semcut.indexes.storage import fork_waits

signal.alarm(10)
guard = fork_waits._guard

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
        with fork_waits.lock():
            print("finalized", flush=True)

def leave_garbage():
    garbage = Garbage()
    garbage.itself = garbage

class CollectingDict(dict):
    def setdefault(self, thread, lock):
        gc.collect()
        return super().setdefault(thread, lock)

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

    def _is_owned(self):
        return self.lock._is_owned()

    def acquire(self, blocking):
        return self.lock.acquire(blocking)

    def release(self):
        self.lock.release()

gc.disable()
"""


def forks(script: str, *arguments: object) -> None:
    done = python(f"{FORK_DURING_A_COLLECTION}{script}\nforker.join()", *arguments)
    assert (done.returncode, done.stdout) == (0, "finalized\n"), done.stderr


def test_garbage_that_is_finalized_while_a_lock_is_listed():
    forks("""
fork_waits._of_threads = CollectingDict()
leave_garbage()
fork_waits.lock()
""")


@pytest.mark.parametrize("when", ["taken", "released"])
def test_garbage_that_is_finalized_while_a_lock_is_taken_or_released(when):
    forks(
        """
own = CollectingLock(fork_waits.lock(), sys.argv[1])
fork_waits._of_threads[threading.get_ident()] = own
leave_garbage()
with fork_waits.lock():
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
    with fork_waits._listing:
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

fork_waits._of_threads = {0: Last()}
child = os.fork()
if not child:
    signal.alarm(10)
    with fork_waits.lock():
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
""")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


def test_ctrl_c_during_a_fork_leaves_no_lock_held():
    done = python("""
import random, threading, time
from semcut.indexes.storage import fork_waits

fork_waits._of_threads = {number: threading.RLock() for number in range(20)}
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
    for lock in (fork_waits._guard, fork_waits._listing, *fork_waits._of_threads.values()):
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
closed = []
with fork_waits._guard, fork_waits._listing:
    other = threading.Thread(target=fork_waits.call_soon, args=(lambda: closed.append(True),))
    other.start()
    other.join()
assert not closed
with fork_waits.lock():
    print(closed, flush=True)
""")
    assert (done.returncode, done.stdout) == (0, "[True]\n"), done.stderr


def test_a_fork_waits_for_the_blocks_of_all_threads():
    done = python("""
import threading
from semcut.indexes.storage import fork_waits

signal.alarm(20)
inside, leave = threading.Barrier(4), threading.Event()
within = []

def use():
    for _ in range(50):
        with fork_waits.lock(), fork_waits.lock():
            within.append(1)
            if len(within) == 3:
                leave.set()
            leave.wait()
            within.pop()

threads = [threading.Thread(target=use) for _ in range(3)]
for thread in threads:
    thread.start()
leave.wait()
for _ in range(20):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        with fork_waits.lock():
            os._exit(len(within))
for thread in threads:
    thread.join()
print("done", flush=True)
""")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
