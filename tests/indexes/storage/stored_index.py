"""Helpers of the tests of storage: read and forge the files of an index without semcut, run a second process."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from semcut.indexes import (
    Encodings,
    FaissIndex,
    IndexConfig,
)
from semcut.indexes.storage.column_specs import names_of
from semcut.indexes.storage.directory import CATALOGUE
from tests.indexes.conftest import CONFIG as PLAIN
from tests.indexes.generate import assert_same, assert_same_records

CONFIG = IndexConfig(**{**PLAIN.model_dump(), "attributes": {"price": "float", "tags": "categories"}})
"""As for other tests, with attributes, so that the index has every column but those of keys."""
COLUMNS = names_of(CONFIG)

ROOT = Path(__file__).parents[3]


def assert_holds(path: Path, batch: Encodings) -> None:
    """Assert that the index at the path contains exactly these records, and finds them."""
    with FaissIndex.open(path) as index:
        assert len(index) == len(batch)
        assert_same_records(index.get(batch.ids), batch)
        with FaissIndex.create(None, index.config) as reference:
            reference.add(batch)
            assert index.stats() == reference.stats()
            for shortlist in (None, 10):
                options = {"k": 10, "cutoff": 0.1, "shortlist": shortlist}
                assert_same(index.search(batch, **options), reference.search(batch, **options))


def contents(path: Path) -> dict[str, bytes]:
    """Read all files of a directory, by their relative names."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def column(path: Path, name: str) -> Path:
    """Return the file of a column of an index that was never compacted."""
    return path / "generation-0" / name


@contextmanager
def catalogue(path: Path):
    """Open the catalogue of the index at a path with sqlite3 alone, and commit all changes at the end."""
    db = sqlite3.connect(path / CATALOGUE)
    try:
        with db:
            yield db
    finally:
        db.close()


HEAD = """
import errno, os, resource, signal, sys
import numpy as np
from semcut.indexes import *
from tests.indexes.storage.stored_index import CONFIG, allowing, six_records
batch = six_records()
"""


@contextmanager
def allowing(more: int) -> Iterator[None]:
    """Let this process take `more` bytes of memory of its own; what is beyond is a `MemoryError`.

    The largest resident size would not tell: a forked process also maps the pages of libraries one by one.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(status["VmData"].split()[0]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.indexes.storage.warm"])


def python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script, which starts with the imports of `HEAD`, in another process, and wait for its end."""
    with tempfile.TemporaryDirectory() as directory:
        stdout, stderr = Path(directory, "stdout"), Path(directory, "stderr")
        process = fork(HEAD + textwrap.dedent(script), arguments, stdout, stderr)
        process.join(60)
        process.kill()  # does nothing to a process that has ended
        process.join()
        return subprocess.CompletedProcess(script, process.exitcode, stdout.read_text(), stderr.read_text())


def fork(script: str, arguments: Iterable[object], stdout: Path, stderr: Path) -> multiprocessing.Process:
    """Start a script in a process that is forked from one that has imported `warm`; its output goes to two files.

    The script sees the environment that this process has now.

    A new interpreter would need two seconds to add a record.
    """
    process = _FORKS.Process(target=_run, args=(script, [*map(str, arguments)], dict(os.environ), stdout, stderr))
    process.start()
    return process


def _run(script: str, arguments: list[str], environment: dict[str, str], *output: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for standard, file in enumerate(output, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), standard)
    warnings.simplefilter("error")
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


def start_python(script: str, *arguments: object, **options: object) -> subprocess.Popen:
    """Start a script as `python` does, and do not wait for it."""
    command = [sys.executable, "-c", HEAD + textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, **options)


def open_handles() -> int:
    """Count the open file descriptors of this process, including those of memory mappings."""
    return len(os.listdir("/proc/self/fd"))


def six_records() -> Encodings:
    """Return six records for `CONFIG`."""
    rng = np.random.default_rng(0)
    return Encodings(
        probabilities=rng.dirichlet(np.full(CONFIG.classes, 0.5), 6).astype(np.float32),
        codes=rng.integers(0, 256, (6, CONFIG.bits // 8), np.uint8),
        features=rng.standard_normal((6, CONFIG.dim)).astype(np.float32),
        ids=np.array([5, 2**62, 3, 8, 0, 77]),
        uris=["a", None, "c", None, "e", "f"],
        attributes={"price": [1.5, None, 0.0, -2.0, 1e300, 7.0], "tags": [["x"], ["y", "x"], [], None, ["x"], ["z"]]},
    )


def moved(batch: Encodings, by: int) -> Encodings:
    """Return the same records with other ids."""
    return Encodings(
        probabilities=batch.probabilities,
        codes=batch.codes,
        features=batch.features,
        ids=batch.ids + by,
        uris=batch.uris,
        attributes=batch.attributes,
    )


def forge_column(path: Path, name: str, values: np.ndarray) -> None:
    """Write a column of at most one block, and a checksum that matches."""
    values.tofile(column(path, name))
    with catalogue(path) as db:
        crc = zlib.crc32(values.tobytes()).to_bytes(4, "little")
        db.execute("UPDATE checksums SET crcs = ? WHERE name = ?", (crc, name))
