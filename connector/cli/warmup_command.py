"""`semcut warmup`: compiles the search kernels before the first search needs them."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec

import click

from semcut.connector.cli.terminal import fail, print_line
from semcut.indexes.errors import SemcutError
from semcut.indexes.kernels import kernel_cache


@click.command()
def warmup() -> None:
    """Compile the search kernels now, once per machine.

    Without this, the first search starts a process in the background that compiles them, and searches are several times
    slower until it has finished. Use this when you build a container image and before you measure speed. Needs numba
    (extra `fast`).
    """
    if find_spec("numba") is None:
        fail("numba is not installed, which the compiled engine needs: pip install 'semcut[fast]'")
    folder = kernel_cache.ready_directory()
    if folder is not None:
        print_line(f"Search kernels are ready in {folder}.")
        return
    folder = kernel_cache.writable_directory()
    if folder is None:
        fail(kernel_cache.why_not_kept())
    from semcut.indexes.warmup import compile_kernels, spinner

    started = time.perf_counter()
    # None if a process in the background holds the lock: that process compiles more slowly, so this one does not wait.
    lock = kernel_cache.lock_directory(folder)
    try:
        with spinner():
            compile_kernels()
    except (SemcutError, OSError):
        raise
    except Exception as error:  # numba cannot compile on this machine, for whatever reason
        fail(f"search kernels cannot be compiled: {error}")
    finally:
        if lock is not None:
            os.close(lock)
    seconds = time.perf_counter() - started
    print_line(f"Search kernels were compiled in {seconds:.0f} s, into {folder}.")
