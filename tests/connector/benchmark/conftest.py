"""A small data set, and a run of everything on it, for all tests of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.from_indexes import real_dataset
from semcut.connector.benchmark.measure.raw_results import Plan
from semcut.connector.benchmark.measure.run import DatasetTask, run
from semcut.connector.benchmark.methods.methods import Data
from tests.connector.benchmark.synthetic import encodings, stored

RECORDS, QUERIES = 3000, 150


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stored indexes of records and of queries, as a user has them."""
    place = tmp_path_factory.mktemp("pair")
    return (
        stored(place / "small-index", *encodings(RECORDS)),
        stored(place / "small-queries", *encodings(QUERIES, seed=1)),
    )


@pytest.fixture(scope="session")
def small(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a data set."""
    path = tmp_path_factory.mktemp("data") / "small"
    real_dataset(path, *pair, name="small").close()
    return path


@pytest.fixture
def dataset(small: Path) -> Iterator[Dataset]:
    with Dataset.open(small) as opened:
        yield opened


@pytest.fixture
def data(dataset: Dataset) -> Data:
    return Data.of(dataset.index)


@pytest.fixture(scope="session")
def out(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of a few methods of every structure, and of two sizes of a growth curve."""
    out = tmp_path_factory.mktemp("run") / "out"
    half = tmp_path_factory.mktemp("data") / "half"
    place = tmp_path_factory.mktemp("half")
    records, queries = (
        stored(place / name, *encodings(rows, seed=seed))
        for name, rows, seed in (("a", RECORDS // 2, 0), ("b", QUERIES, 1))
    )
    real_dataset(half, records, queries, name="half").close()
    plan = Plan(
        threads=faiss.omp_get_max_threads(), rounds=1, call_seconds=0.02, truth_seconds=0.2, queries=128,
        batches=(1, 32, 128),
    )  # fmt: skip
    tasks = [
        DatasetTask("small", "quick", lambda: small),
        DatasetTask("growth-half", "growth", lambda: half),
        DatasetTask("growth-small", "growth", lambda: small),
    ]
    run(out, tasks, plan, lambda what, done, total: None)
    return out
