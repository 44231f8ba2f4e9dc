"""Store raw results in the directory of a run: the results of each method for each query, and the time of each call.

    plan.json                       `Plan`, the same for every data set
    raw/DATASET/METHOD.npz          ids, distances, relevance and labels (nq, k) of all queries; seconds_B, one
                                    per call, of batches of nominally B queries, and size_B, their actual size;
                                    steps_* (nq,) and average_precision (m,) of rankings of all records, where known
    raw/DATASET/truth.npz           exact answers (see `ground_truth`)
    raw/DATASET/queries.npz         ids and labels of the queries, records per label, and which of the best records
                                    pruning skips
    raw/DATASET/probes.npz          seconds per round of the parts of a search (see `stage_times`)
    raw/DATASET/dataset.json        everything else (see `dataset_facts`). Written last: a data set without this file is
                                    not complete, and is measured again

All figures are computed from these files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.array_files import Array, read_arrays
from semcut.connector.benchmark.measure.timing import Times
from semcut.connector.benchmark.methods.structures import Method
from semcut.indexes.errors import DataError
from semcut.indexes.storage.atomic_write import replacing

REPEAT = "delete its directory, and the next run measures it again"
"""What a user can do about a damaged file of results."""

SHORTEST, LONGEST = 1e-9, 1e9
"""The least and the most seconds of a measured time. Numbers far outside of this cannot be drawn."""

_MAX_BYTES = 256 << 20
"""The largest sum of the arrays of a file: 10,000 queries, 100 answers to each, at 12 cutoffs and rankings."""


def file_name(method: str) -> str:
    """Return the file name of a method: readable, and safe on any file system."""
    return re.sub(r"[^A-Za-z0-9.=+]+", "-", method).strip("-") + ".npz"


def save_method(directory: Path, method: Method, times: Times, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write the results of a method and the times of its calls."""
    save_arrays(
        directory / file_name(method.name),
        {
            **columns,
            **{f"seconds_{batch}": np.asarray(taken) for batch, taken in times.seconds.items()},
            **{f"size_{batch}": np.asarray(size) for batch, size in times.sizes.items()},
        },
    )


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a file, in one step."""
    with replacing(path) as scratch, scratch.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_arrays(
    path: Path,
    expected: Callable[[str], Array | None],
    required: Collection[str] = (),
    max_bytes: int = _MAX_BYTES,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file; the arguments are those of `read_arrays`, `max_bytes` counts up to 256 MiB.

    Raises:
        DataError: the file is missing or damaged, or has other arrays.
    """
    try:
        return read_arrays(path, expected, required, min(max_bytes, _MAX_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read ({reason}): {REPEAT}") from None


def require_same_length(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise `DataError` unless all these arrays of a file have the same number of rows."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path} has arrays of different lengths ({shown}): {REPEAT}")
