"""`semcut warmup`: compiles what searches, before the first search wants it."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec

import click

from semcut.connector.cli.app import OUT, fail
from semcut.indexes.errors import SemcutError
from semcut.indexes.kernels import kernel_cache


@click.command()
def warmup() -> None:
    """Compile the search kernels now, once a machine.

    Without this, the first search has it done by a process beside, and searches are several times slower until that is
    through. For images of containers, and before measuring. Needs numba (extra `fast`).
    """
    if find_spec("numba") is None:
        fail("numba is not installed, which the compiled engine needs: pip install 'semcut[fast]'")
    folder = kernel_cache.found()
    if folder is not None:
        OUT.print(f"Search kernels are ready in {folder}.", highlight=False, soft_wrap=True)
        return
    folder = kernel_cache.target()
    if folder is None:
        fail(kernel_cache.unkept())
    from semcut.indexes.kernels.warmup import fill, spinner

    started = time.perf_counter()
    lock = kernel_cache.lock(folder)  # what compiles beside a search may have it, and is slower
    try:
        with spinner():
            fill()
    except (SemcutError, OSError):
        raise
    except Exception as error:  # whatever numba has against this machine
        fail(f"search kernels cannot be compiled: {error}")
    finally:
        if lock is not None:
            os.close(lock)
    seconds = time.perf_counter() - started
    OUT.print(f"Search kernels were compiled in {seconds:.0f} s, into {folder}.", highlight=False, soft_wrap=True)
