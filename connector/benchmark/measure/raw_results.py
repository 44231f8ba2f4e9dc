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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.array_files import read_arrays
from semcut.connector.benchmark.measure.timing import Times
from semcut.connector.benchmark.methods.structures import Method
from semcut.indexes.errors import DataError
from semcut.indexes.storage.atomic_write import replacing


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


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): delete its directory, and the next run measures it again"
        ) from None
