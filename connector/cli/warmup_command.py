"""`semcut warmup`: compiles the search kernels before the first search needs them."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec

import click

from semcut.connector.cli.terminal import fail, print_line
from semcut.indexes.errors import SemcutError, install_hint
from semcut.indexes.kernels import kernel_cache


@click.command()
def warmup() -> None:
    """Compile the search kernels now, once per machine.

    Without this command, the first search starts a background process that compiles the kernels, and searches are
    several times slower until that process has finished. Run the command when you build a container image, and before
    you measure speed. Needs numba (extra `fast`).
    """
    if find_spec("numba") is None:
        fail(f"numba is not installed, which the compiled engine needs: {install_hint('fast')}")
    folder = kernel_cache.ready_directory()
    if folder is not None:
        print_line(f"Search kernels are ready in {folder}.")
        return
    folder = kernel_cache.writable_directory()
    if folder is None:
        fail(kernel_cache.why_not_kept())
    from semcut.indexes.warmup import compile_kernels, spinner

    started = time.perf_counter()
    # None if a background process has the lock. Background processes compile more slowly, so do not wait for it.
    lock = kernel_cache.lock_directory(folder)
    try:
        with spinner():
            compile_kernels()
    except (SemcutError, OSError):
        raise
    except Exception as error:  # numba raises errors of many types
        fail(f"search kernels cannot be compiled: {error}")
    finally:
        if lock is not None:
            os.close(lock)
    seconds = time.perf_counter() - started
    print_line(f"Search kernels were compiled in {seconds:.0f} s, into {folder}.")
