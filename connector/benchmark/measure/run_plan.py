"""Define the plan of a run: what it does with every data set. Store the plan in the directory of the run.

`plan.json` is written when a run starts. A run that continues an interrupted one must have the same plan.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from semcut.connector.benchmark.datasets.dataset import Count, Text
from semcut.connector.benchmark.datasets.run_folders import require_directories
from semcut.indexes.config import Settings
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import read_json
from semcut.indexes.search_defaults import DEFAULT_K
from semcut.indexes.storage.atomic_write import write_json

_FILE = "plan.json"

CALLS = {1: (10, 100), 32: (2, 10)}
"""Least and greatest number of timed calls of a method in a round, by size of batch; one call of any other size."""


class Plan(Settings):
    """The plan of a run: what it does with every data set.

    Attributes:
        k: results of a search.
        queries: maximum number of queries of a data set that are used, at most 10,000.
        batches: queries per call; every method is timed with each of these sizes.
        rounds: measured rounds over all methods.
        call_seconds: time that one call may take; a batch that would take longer is cut. The search with all queries
            may take six times as long.
        truth_seconds: time for exact answers, per cutoff and ranking; a third of it, per method, for rankings of all
            records.
        whole: largest number of records for which mAP@all is measured.
        threads: threads of FAISS and of the compiled search.
        seed: seed of the choice of queries.
        methods: only structures whose names begin with one of these. None: all.
    """

    k: int = Field(default=DEFAULT_K, ge=1, le=100)
    queries: int = Field(default=1024, ge=1, le=10_000)
    batches: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = Field(
        default=(1, 32, 1024), min_length=1, max_length=20
    )
    rounds: int = Field(default=3, ge=1, le=1000)
    call_seconds: float = Field(default=5.0, gt=0, le=1e6)
    truth_seconds: float = Field(default=15.0, gt=0, le=1e6)
    whole: Count = 50_000
    threads: int = Field(ge=1, le=1 << 16)
    seed: Count = 0
    methods: Annotated[tuple[Text, ...], Field(max_length=1000)] | None = None

    @property
    def largest_batch(self) -> int:
        """Queries per call of the largest batch; its results are those of the method."""
        return max(self.batches)

    @property
    def most_calls(self) -> dict[int, int]:
        """The most timed calls of a method, in all rounds together, by size of batch."""
        return {batch: self.rounds * CALLS.get(batch, (1, 1))[1] for batch in self.batches}

    @property
    def smallest_batch(self) -> int:
        """Queries per call of the smallest batch, whose times are latencies."""
        return min(self.batches)


def stored_plan(out: Path) -> Plan:
    """Read the plan of the run in a directory.

    Raises:
        DataError: the directory has no plan, or a damaged one.
    """
    path = out / _FILE
    if not os.path.lexists(path):
        raise DataError(f"{out} holds no run of a benchmark, which has a {_FILE}: give the directory of a run")
    try:
        return Plan(**read_json(path))  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        raise DataError(f"{path} is damaged: choose another directory, or delete this one") from None


def different(found: Plan, wanted: Plan) -> str:
    """Say in what a plan differs from the one that is wanted; empty if in nothing."""
    pairs = {name: (getattr(found, name), getattr(wanted, name)) for name in Plan.model_fields}
    return "; ".join(f"{name} = {one}, not {other}" for name, (one, other) in pairs.items() if one != other)


def keep_plan(out: Path, plan: Plan) -> None:
    """Write the plan of a new run, or check that the directory was started with the same plan.

    Raises:
        DataError: as for `check_plan`.
    """
    if not check_plan(out, plan):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / _FILE, plan.model_dump(mode="json"))


def check_plan(out: Path, plan: Plan) -> bool:
    """Check that a directory is new, or that of a run with the same plan, and return which; nothing is changed.

    Returns:
        Whether a run was started there.

    Raises:
        DataError: the directory holds a run with another plan, or one with links to other directories, or something
            else.
    """
    path = out / _FILE
    if os.path.lexists(path):
        changes = different(stored_plan(out), plan)
        if changes:
            raise DataError(
                f"{out} holds a run with {changes}: give the options of that run, or choose another directory"
            )
        require_directories(out)
        return True
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is not a directory: choose another")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} exists already and holds no run of a benchmark: choose a new directory")
    return False
