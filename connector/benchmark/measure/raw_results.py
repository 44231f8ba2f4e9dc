"""Raw results of a run in its directory: what was found and how long it took, query by query, call by call.

    plan.json                       `Plan`: what was asked for, the same for every data set
    raw/DATASET/METHOD.npz          ids, distances, relevance and labels (nq, k) of all queries; seconds_B, one
                                    per call, of batches of nominally B queries, and size_B, how many there were;
                                    steps_* (nq,) and average_precision (m,) of the whole ranking, where there are any
    raw/DATASET/truth.npz           exact answers (see `truth`)
    raw/DATASET/queries.npz         ids and labels of the queries, records of each label, what pruning loses
    raw/DATASET/probes.npz          seconds per round of what was timed beside the methods
    raw/DATASET/dataset.json        everything else: data set, methods, what was built, machine. Written last: a
                                    directory without it is an interrupted run, and is done again

Figures are computed from these files alone, whenever they are wanted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from semcut.connector.benchmark.measure.timing import Times
from semcut.connector.benchmark.methods.methods import Method
from semcut.indexes.config import Settings
from semcut.indexes.errors import DataError


class Plan(Settings):
    """What a run does with every data set.

    Attributes:
        k: results of a search.
        queries: how many, of those that a data set has; also the largest batch.
        batches: queries of a call.
        rounds: measured rounds over all methods.
        call_seconds: what one call may take; larger batches are cut. Six times that for results of all queries.
        truth_seconds: for exact answers, per cutoff and ranking; for whole rankings, per method, a third of it.
        whole: records up to which mAP@all is measured.
        threads: of FAISS and of the compiled engine.
        seed: of the choice of queries.
        methods: only structures whose names begin so; None: all.
    """

    k: int = Field(default=10, ge=1, le=100)
    queries: int = Field(default=1024, ge=1)
    batches: tuple[int, ...] = (1, 32, 1024)
    rounds: int = Field(default=3, ge=1)
    call_seconds: float = Field(default=5.0, gt=0)
    truth_seconds: float = Field(default=15.0, gt=0)
    whole: int = 50_000
    threads: int = Field(ge=1)
    seed: int = 0
    methods: tuple[str, ...] | None = None


def file_name(method: str) -> str:
    """The name of a method's file: readable, and safe on any file system."""
    return re.sub(r"[^A-Za-z0-9.=+]+", "-", method).strip("-") + ".npz"


def keep_plan(out: Path, plan: Plan) -> None:
    """Write the plan of a run, or see that it is the one that the directory was started with.

    Raises:
        DataError: it is another, or the directory holds something else.
    """
    path = out / "plan.json"
    if path.is_file():
        try:
            before = Plan(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            raise DataError(f"{path} is damaged: choose another directory, or delete this one") from None
        different = [name for name in Plan.model_fields if getattr(before, name) != getattr(plan, name)]
        if different:
            told = ", ".join(f"{name} {getattr(before, name)} and not {getattr(plan, name)}" for name in different)
            raise DataError(f"{out} holds a run with {told}: ask for the same again, or choose another directory")
        return
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is not a directory: choose another")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} exists already and holds no run of a benchmark: choose a new directory")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, json.loads(plan.model_dump_json()))


def finished(directory: Path) -> dict[str, Any] | None:
    """What is known of a data set whose results are complete; None if they are not."""
    try:
        content = json.loads((directory / "dataset.json").read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def save_method(directory: Path, method: Method, times: Times, columns: dict[str, NDArray[Any]]) -> None:
    """Write what was found and measured of a method."""
    save(
        directory / file_name(method.name),
        {
            **columns,
            **{f"seconds_{batch}": np.asarray(taken) for batch, taken in times.seconds.items()},
            **{f"size_{batch}": np.asarray(size) for batch, size in times.sizes.items()},
        },
    )


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a file."""
    np.savez_compressed(path, **arrays)


def load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # a damaged archive raises anything from zipfile, zlib and numpy
        raise DataError(f"{path} cannot be read ({error}): delete its directory, and it is measured again") from None


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(scratch, path)
