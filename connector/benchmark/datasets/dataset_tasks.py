"""List the data sets of a run: copies of the user's indexes, records fitted to these, or digits if there are none.

A task creates its data set in the directory of the run, when the run needs it. A complete data set is used again; an
unfinished one is deleted and created again, if it has nothing else than what semcut writes there (see `run_folders`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.fitted_records import Fit, fitted_dataset
from semcut.connector.benchmark.datasets.from_indexes import dataset_from_indexes
from semcut.connector.benchmark.datasets.run_folders import delete_dataset
from semcut.connector.benchmark.methods.grids import Grid
from semcut.connector.data import sources
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.catalogue_format import FORMAT_VERSION
from semcut.indexes.storage.store import Store

GROWTH_CLASSES = 200
QUERIES = 4096
"""Queries of a fitted data set; a run uses a random choice of them."""


@dataclass(frozen=True)
class DatasetTask:
    """A data set that a run measures.

    Attributes:
        name: name of the data set and of its directory of results.
        grid: name of the grid of methods that search it, see `grids`.
        make: creates the data set, if it is not complete, and returns its directory.
    """

    name: str
    grid: Grid
    make: Callable[[], Path]


@dataclass(frozen=True)
class IndexPair:
    """Two stored indexes, one of records and one of labelled queries, and a name for both."""

    name: str
    index: Path
    queries: Path


@dataclass(frozen=True)
class FittedRequest:
    """A fitted data set that the user requests.

    Attributes:
        records: number of records.
        classes: number of classes.
        zipf: exponent of the class frequencies.
    """

    records: int
    classes: int
    zipf: float = 0.0

    @property
    def name(self) -> str:
        """The name for tables and directories."""
        return f"fitted-{self.records}x{self.classes}" + (f"-zipf{self.zipf:g}" if self.zipf else "")


def dataset_tasks(
    out: Path,
    pairs: Sequence[IndexPair],
    fitted: Sequence[FittedRequest],
    growth: Sequence[int],
    bits: Sequence[int],
    *,
    grid: Grid,
    seed: int,
    progress: Progress,
) -> list[DatasetTask]:
    """List the data sets of a run, in order. Fitted data sets are fitted to the first pair, or to the digits.

    Nothing is written or deleted before a task makes its data set.

    Args:
        out: directory of the run.
        pairs: indexes of the user.
        fitted: fitted data sets.
        growth: numbers of records of a growth curve.
        bits: lengths of the codes; every data set is created with each of them, those of the growth curve only with the
            first. Empty: all bits of the codes.
        grid: name of the grid of methods for all data sets except those of the growth curve.
        seed: seed of fitted data.
        progress: callback that gets the progress of creating a data set.

    Raises:
        DataError: two data sets would have the same name, or an index of the user is inside of the run's directory.
        StorageError: a data set has to be made, and an index of the user cannot be used.
    """
    for place in (place for pair in pairs for place in (pair.index, pair.queries)):
        if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(out)):
            raise DataError(
                f"{place} is inside of {out}, where a run deletes unfinished data sets: choose another directory for "
                "the run"
            )
    first = cache(lambda: pairs[0] if pairs else digits(progress))
    tasks: list[DatasetTask] = []
    copied: list[tuple[str, Callable[[], IndexPair]]] = [(pair.name, partial(_given, pair)) for pair in pairs]
    if grid == "quick" and not pairs:
        copied.append(("digits", first))
    lengths: list[int | None] = [*bits] or [None]
    for length in lengths:
        ending = "" if length is None else f"-{length}bits"
        for name, pair in copied:
            path = out / "data" / (name + ending)
            tasks.append(DatasetTask(path.name, grid, partial(_make_copy, path, pair, length)))
        tasks += [
            _fitted_task(out, request, request.name + ending, grid, first, length, seed, progress) for request in fitted
        ]
    for records in growth:
        request, name = FittedRequest(records, GROWTH_CLASSES), f"growth-{records}"
        tasks.append(_fitted_task(out, request, name, "growth", first, lengths[0], seed, progress))
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two data sets would be named {name}: rename a directory, or request each only once")
    if any(not _is_complete(out / "data" / name) for name in names):
        for given in pairs:  # before anything is written
            Store.open(given.index).close()
            Store.open(given.queries).close()
    return tasks


def digits(progress: Progress) -> IndexPair:
    """Return indexes of scikit-learn's digits from the cache.

    The first call trains a small network, as `semcut demo` does, and encodes the digits with it. Only this first call
    needs torch.
    """
    place = sources.cache() / f"benchmark-digits-{FORMAT_VERSION}"
    pair = IndexPair("digits", place / "index", place / "queries")
    if place.is_dir():
        return pair
    from semcut.connector.models.network import Architecture  # loads torch
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.training.loop import train
    from semcut.connector.training.train_config import TrainConfig

    training, queries = sources.load("digits/train"), sources.load("digits/test")
    architecture = Architecture(backbone="small", classes=training.classes, image_size=16)
    config = TrainConfig(epochs=6, augment="shift")

    def report(done: int, total: int, task: str = "") -> None:
        progress(done, total, f"digits: training a small network, {task}")

    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".digits-") as scratch:
        made = Path(scratch) / "made"
        train(training, architecture, config, made / "model", progress=report)
        for name, images in (("index", training), ("queries", queries)):
            progress(0, 1, f"digits: encoding {name}")
            with Connector.create(made / name, made / "model") as connector:
                connector.add_files(list(images.files))
        try:
            os.replace(made, place)
        except OSError:  # another process may have created the directory first
            if not place.is_dir():
                raise
    return pair


def _fitted_task(
    out: Path,
    request: FittedRequest,
    name: str,
    grid: Grid,
    source: Callable[[], IndexPair],
    bits: int | None,
    seed: int,
    progress: Progress,
) -> DatasetTask:
    def report(done: int, total: int, task: str = "") -> None:
        progress(done, total, f"{name}: {task}")

    def make() -> Path:
        path = out / "data" / name
        if _is_complete(path):
            return path
        pair = source()
        with _open_or_copy(out / "data" / f"source-{pair.name}", pair) as dataset:
            fit = Fit.of(dataset, seed=seed)
        delete_dataset(path)
        made = fitted_dataset(
            path,
            fit,
            name=name,
            classes=request.classes,
            records=request.records,
            queries=QUERIES,
            zipf=request.zipf,
            seed=seed,
            bits=bits,
            progress=report,
        )
        made.close()
        return path

    return DatasetTask(name, grid, make)


def _make_copy(path: Path, source: Callable[[], IndexPair], bits: int | None) -> Path:
    """Copy a pair of indexes into a data set, if that is not complete, and return its directory."""
    if not _is_complete(path):
        pair = source()
        delete_dataset(path)
        dataset_from_indexes(path, pair.index, pair.queries, name=path.name, bits=bits).close()
    return path


def _open_or_copy(path: Path, pair: IndexPair) -> Dataset:
    """Open a pair of indexes as a data set with all bits of its codes, after copying it if necessary."""
    if _is_complete(path):
        return Dataset.open(path)
    delete_dataset(path)
    return dataset_from_indexes(path, pair.index, pair.queries, name=pair.name)


def _is_complete(path: Path) -> bool:
    """Return whether the path holds a complete data set."""
    if not os.path.lexists(path):
        return False
    try:
        Dataset.open(path).close()
    except DataError:
        return False
    return True


def _given(pair: IndexPair) -> IndexPair:
    return pair
