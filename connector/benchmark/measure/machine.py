"""What a benchmark ran on: processor, memory, versions, threads."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import faiss


def describe() -> dict[str, Any]:
    """The machine and what is installed, for JSON."""
    return {
        "processor": _found("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": 1024 * int(_found("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0),
        "gpus": faiss.get_num_gpus(),
        "system": platform.platform(),
        "load_average": list(os.getloadavg()),
        "versions": {
            "python": platform.python_version(),
            **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
        },
    }


def pin_threads(count: int) -> None:
    """Let FAISS, and numba if it is installed, use so many threads."""
    faiss.omp_set_num_threads(count)
    try:
        import numba
    except ImportError:
        return
    most: int = getattr(numba.config, "NUMBA_NUM_THREADS", count)
    numba.set_num_threads(min(count, most))


_PACKAGES = ("semcut", "numpy", "faiss-cpu", "faiss-gpu", "numba")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _found(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return match.group(1).strip() if match else ""
