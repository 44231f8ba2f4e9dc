"""Fixtures for all tests of the benchmark: a small data set, and a run with all structures on this data set.

All processes of a test run share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.dataset_tasks import DatasetTask
from semcut.connector.benchmark.datasets.from_indexes import dataset_from_indexes
from semcut.connector.benchmark.measure.run import run
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.benchmark.methods.structures import Data
from semcut.indexes.progress import silent
from tests.connector.benchmark.synthetic import encodings, stored
from tests.made_once import made_once

RECORDS, QUERIES = 3000, 150


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give stored indexes of records and of queries, as `semcut index` writes them."""

    def make(place: Path) -> None:
        stored(place / "small-index", *encodings(RECORDS))
        stored(place / "small-queries", *encodings(QUERIES, seed=1))

    place = made_once(tmp_path_factory, "pair", make)
    return place / "small-index", place / "small-queries"


@pytest.fixture(scope="session")
def small(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a data set."""

    def make(place: Path) -> None:
        dataset_from_indexes(place / "small", *pair, name="small").close()

    return made_once(tmp_path_factory, "data", make) / "small"


@pytest.fixture
def dataset(small: Path) -> Iterator[Dataset]:
    with Dataset.open(small) as opened:
        yield opened


@pytest.fixture
def data(dataset: Dataset) -> Data:
    return Data.of(dataset.index, dataset.index_path)


@pytest.fixture(scope="session")
def out(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a run: a few methods of every structure, and two sizes of a growth curve."""

    def make(place: Path) -> None:
        records, queries = (
            stored(place / name, *encodings(rows, seed=seed))
            for name, rows, seed in (("records", RECORDS // 2, 0), ("queries", QUERIES, 1))
        )
        dataset_from_indexes(place / "half", records, queries, name="half").close()
        plan = Plan(
            threads=faiss.omp_get_max_threads(), rounds=1, call_seconds=0.02, truth_seconds=0.2, queries=128,
            batches=(1, 32, 128),
        )  # fmt: skip
        tasks = [
            DatasetTask("small", "quick", lambda: small),
            DatasetTask("growth-half", "growth", lambda: place / "half"),
            DatasetTask("growth-small", "growth", lambda: small),
        ]
        run(place / "out", tasks, plan, silent)

    return made_once(tmp_path_factory, "benchmark-run", make) / "out"
