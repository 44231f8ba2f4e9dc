"""Describe the machine that a benchmark runs on, and set the number of threads that all methods use."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import faiss
from pydantic import Field

from semcut.connector.benchmark.datasets.dataset import Count, Text

_PACKAGES = ("semcut", "numpy", "faiss-cpu", "faiss-gpu", "numba", "usearch", "rabitqlib")


@dataclass(frozen=True)
class Machine:
    """The machine of a run and what is installed on it.

    Attributes:
        processor: name of the processor.
        cores: processor cores that this process may use.
        memory_bytes: memory of the machine; 0 if it is not known.
        gpus: GPUs that FAISS finds.
        system: operating system and its version.
        load_average: load over the last 1, 5 and 15 minutes.
        versions: version of Python and of each installed package out of `_PACKAGES`.
    """

    processor: Text
    cores: Count | None
    memory_bytes: Count
    gpus: Count
    system: Text
    load_average: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(min_length=1, max_length=3)]
    versions: Annotated[dict[Text, Text], Field(max_length=100)]

    @staticmethod
    def current() -> Machine:
        """Describe the machine of this process."""
        return Machine(
            processor=_search("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or platform.machine(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            memory_bytes=1024 * int(_search("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0),
            gpus=faiss.get_num_gpus(),
            system=platform.platform(),
            load_average=list(os.getloadavg()),
            versions={
                "python": platform.python_version(),
                **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
            },
        )


def describe() -> dict[str, Any]:
    """Describe the machine of this process, for JSON: the attributes of `Machine`."""
    return asdict(Machine.current())


def set_threads(count: int) -> None:
    """Make FAISS, and numba if it is installed, use this many threads."""
    faiss.omp_set_num_threads(count)
    try:
        import numba
    except ImportError:
        return
    most: int = getattr(numba.config, "NUMBA_NUM_THREADS", count)
    numba.set_num_threads(min(count, most))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _search(path: str, pattern: str) -> str:
    """Return the first group of a pattern in a file; empty if there is no such file or no match."""
    try:
        match = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return match.group(1).strip() if match else ""
