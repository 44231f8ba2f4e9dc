"""List the data sets of a run: copies of the user's indexes, records fitted to these, or digits if there are none.

A task creates its data set in the directory of the run, when the run needs it. A complete data set is used again; an
unfinished one is deleted and created again, if it has nothing else than what semcut writes there (see `run_folders`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from semcut.connector.benchmark.datasets.data_origin import origin_of, require_same, with_bits
from semcut.connector.benchmark.datasets.dataset import Dataset, is_finished
from semcut.connector.benchmark.datasets.fitted_records import Fit, fitted_dataset
from semcut.connector.benchmark.datasets.from_indexes import dataset_from_indexes
from semcut.connector.benchmark.datasets.run_folders import delete_dataset
from semcut.connector.benchmark.methods.grids import Grid
from semcut.connector.data import source_folders, sources
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.catalogue_format import FORMAT_VERSION

GROWTH_CLASSES = 200
QUERIES = 4096
"""Queries of a fitted data set; a run uses a random choice of them."""
_DIGITS = f"scikit-learn's digits (format {FORMAT_VERSION})"


@dataclass(frozen=True)
class DatasetTask:
    """A data set that a run measures.

    Attributes:
        name: name of the data set and of its directory of results.
        grid: name of the grid of methods that search it, see `grids`.
        make: creates the data set, if it is not complete, and returns its directory.
        wanted: what `About` has to say of the data set, by attribute.
    """

    name: str
    grid: Grid
    make: Callable[[], Path]
    wanted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexPair:
    """Two stored indexes, one of records and one of labelled queries, and a name for both.

    Attributes:
        name: the name.
        index: index of the records.
        queries: index of the queries.
        origin: what they hold, in words; None for indexes of the user, which `data_origin` describes.
    """

    name: str
    index: Path
    queries: Path
    origin: str | None = None


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
        DataError: two data sets would have the same name, an index of the user is inside of the run's directory, or a
            data set there is damaged or was made of other data.
        StorageError: an index of the user cannot be opened.
    """
    for place in (place for pair in pairs for place in (pair.index, pair.queries)):
        if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(out)):
            raise DataError(
                f"{place} is inside of {out}, where a run deletes unfinished data sets: choose another directory for "
                "the run"
            )
    _require_different([pair.name for pair in pairs])
    first = cache(lambda: digits(progress))
    tasks: list[DatasetTask] = []
    copied: list[tuple[str, Callable[[], IndexPair], str]] = [
        (pair.name, partial(_given, pair), origin_of(pair.index, pair.queries)) for pair in pairs
    ]
    source = copied[0] if copied else ("digits", first, _DIGITS)
    if grid == "quick" and not pairs:
        copied.append(source)
    lengths: list[int | None] = [*bits] or [None]
    for length in lengths:
        ending = "" if length is None else f"-{length}bits"
        for name, pair, origin in copied:
            path, wanted = out / "data" / (name + ending), {"origin": with_bits(origin, length)}
            tasks.append(
                DatasetTask(path.name, grid, partial(_make_copy, path, pair, length, wanted, path.name), wanted)
            )
        tasks += [
            _fitted_task(out, request, request.name + ending, grid, source, length, seed, progress)
            for request in fitted
        ]
    for records in growth:
        request, name = FittedRequest(records, GROWTH_CLASSES), f"growth-{records}"
        tasks.append(_fitted_task(out, request, name, "growth", source, lengths[0], seed, progress))
    _require_different([*(task.name for task in tasks), *([_source_name(source[0])] if fitted or growth else [])])
    for task in tasks:
        _is_complete(out / "data" / task.name, task.wanted)
    return tasks


def _require_different(names: Sequence[str]) -> None:
    """Raise `DataError` if two data sets would have the same directory, also on a disk that ignores case."""
    folded = [name.casefold() for name in names]
    for name in names:
        if folded.count(name.casefold()) > 1:
            raise DataError(f"two data sets would be named {name}: rename a directory, or request each only once")


def _source_name(name: str) -> str:
    """Name the copy of an index to which others are fitted; no directory that a user gives makes a name with a +."""
    return f"source+{name}"


def digits(progress: Progress) -> IndexPair:
    """Return indexes of scikit-learn's digits from the cache.

    The first call trains a small network, as `semcut demo` does, and encodes the digits with it. Only this first call
    needs torch.
    """
    place = source_folders.cache() / f"benchmark-digits-{FORMAT_VERSION}"
    pair = IndexPair("digits", place / "index", place / "queries", _DIGITS)
    if place.is_dir():
        return pair
    from semcut.connector.models.network import Architecture  # loads torch
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.training.loop import train
    from semcut.connector.training.train_config import TrainConfig

    training, queries = sources.digits("train"), sources.digits("test")
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
    source: tuple[str, Callable[[], IndexPair], str],
    bits: int | None,
    seed: int,
    progress: Progress,
) -> DatasetTask:
    source_name, pair, origin = source
    wanted = {
        "origin": with_bits(origin, bits),
        "records": request.records,
        "classes": request.classes,
        "zipf": request.zipf,
        "seed": seed,
    }

    def report(done: int, total: int, task: str = "") -> None:
        progress(done, total, f"{name}: {task}")

    def make() -> Path:
        path = out / "data" / name
        if _is_complete(path, wanted):
            return path
        copy = _make_copy(out / "data" / _source_name(source_name), pair, None, {"origin": origin}, source_name)
        with Dataset.open(copy) as dataset:
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
            origin=with_bits(origin, bits),
            progress=report,
        )
        made.close()
        return path

    return DatasetTask(name, grid, make, wanted)


def _make_copy(
    path: Path, source: Callable[[], IndexPair], bits: int | None, wanted: Mapping[str, Any], name: str
) -> Path:
    """Copy a pair of indexes into a data set, if that is not complete, and return its directory."""
    if not _is_complete(path, wanted):
        pair = source()
        delete_dataset(path)
        origin = None if pair.origin is None else with_bits(pair.origin, bits)
        with dataset_from_indexes(path, pair.index, pair.queries, name=name, bits=bits, origin=origin) as made:
            require_same(path, made.about.model_dump(), wanted)  # the indexes may have changed since the run began
    return path


def _is_complete(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Return whether the path holds a complete data set.

    Raises:
        DataError: the data set is damaged, or was made of other data than is wanted.
    """
    if not is_finished(path):
        return False
    with Dataset.open(path) as dataset:
        require_same(path, dataset.about.model_dump(), wanted)
    return True


def _given(pair: IndexPair) -> IndexPair:
    return pair
