"""Where the data sets of a run come from: indexes of the user's, records fitted to them, and, with nothing, digits.

A data set is made once, in the run's own directory, when its turn comes; one that was not finished is made again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.fitted import Fit, fitted_dataset
from semcut.connector.benchmark.datasets.from_indexes import real_dataset
from semcut.connector.benchmark.measure.run import DatasetTask, Progress
from semcut.connector.benchmark.methods.grids import Grid
from semcut.indexes.errors import DataError
from semcut.indexes.storage.catalogue_format import FORMAT_VERSION

GROWTH_CLASSES = 200
QUERIES = 4096
"""Queries of a fitted data set; a run takes its own choice of them."""


@dataclass(frozen=True)
class Pair:
    """Two stored indexes, of records and of labelled queries, and what to call them."""

    name: str
    index: Path
    queries: Path


@dataclass(frozen=True)
class Wanted:
    """A fitted data set that was asked for.

    Attributes:
        records, classes: how many.
        zipf: exponent of the frequencies of classes.
    """

    records: int
    classes: int
    zipf: float = 0.0

    @property
    def name(self) -> str:
        """For tables and directories."""
        return f"fitted-{self.records}x{self.classes}" + (f"-zipf{self.zipf:g}" if self.zipf else "")


def tasks(
    out: Path,
    pairs: Sequence[Pair],
    fitted: Sequence[Wanted],
    growth: Sequence[int],
    bits: Sequence[int],
    *,
    grid: Grid,
    seed: int,
    progress: Progress,
) -> list[DatasetTask]:
    """What to run, in order; fitted data sets are fitted to the first pair.

    Args:
        out: directory of the run.
        pairs: real data; digits where there are none.
        fitted: data sets to make.
        growth: numbers of records of a growth curve.
        bits: of the codes, all combinations with the others; empty: as they are.
        grid: of all but the growth curve.
        seed: of fitted data.
        progress: told about the making.

    Raises:
        DataError: two data sets would have the same name.
    """
    first = _once(lambda: pairs[0] if pairs else digits(progress))
    found: list[DatasetTask] = []
    real: list[tuple[str, Callable[[], Pair]]] = [(pair.name, partial(_given, pair)) for pair in pairs]
    if grid == "quick" and not pairs:
        real.append(("digits", first))
    lengths: list[int | None] = [*bits] or [None]
    for count in lengths:
        ending = "" if count is None else f"-{count}bits"
        for name, pair in real:
            path = out / "data" / (name + ending)
            found.append(DatasetTask(path.name, grid, partial(_real, path, pair, count)))
        found += [_fitted(out, wanted, wanted.name + ending, grid, first, count, seed, progress) for wanted in fitted]
    for records in growth:
        wanted, name = Wanted(records, GROWTH_CLASSES), f"growth-{records}"
        found.append(_fitted(out, wanted, name, "growth", first, lengths[0], seed, progress))
    names = [task.name for task in found]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two data sets would be named {name}: rename a directory, or ask for each once")
    return found


def digits(progress: Progress) -> Pair:
    """Encodings of scikit-learn's digits, made in the cache the first time: trains a small network as `semcut demo`
    does."""
    from semcut.connector.data import sources  # waits for torch, which nothing else here needs
    from semcut.connector.models.network import Architecture
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.training.loop import train
    from semcut.connector.training.train_config import TrainConfig

    place = sources.cache() / f"benchmark-digits-{FORMAT_VERSION}"
    pair = Pair("digits", place / "index", place / "queries")
    if place.is_dir():
        return pair
    training, queries = sources.load("digits/train"), sources.load("digits/test")
    architecture = Architecture(backbone="small", classes=training.classes, image_size=16)
    config = TrainConfig(epochs=6, augment="shift")

    def report(epoch: int, seen: int, of: int, loss: float) -> None:
        progress("digits: training a small network", of * epoch + seen, of * config.epochs)

    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".digits-") as scratch:
        made = Path(scratch) / "made"
        train(training, architecture, config, made / "model", progress=report)
        for name, images in (("index", training), ("queries", queries)):
            progress(f"digits: encoding {name}", 0, 1)
            with Connector.create(made / name, made / "model") as connector:
                connector.add_files(list(images.files))
        try:
            os.replace(made, place)
        except OSError:  # another process was faster
            if not place.is_dir():
                raise
    return pair


def _fitted(
    out: Path,
    wanted: Wanted,
    name: str,
    grid: Grid,
    source: Callable[[], Pair],
    bits: int | None,
    seed: int,
    progress: Progress,
) -> DatasetTask:
    def make() -> Path:
        path = out / "data" / name
        if _ready(path):
            return path
        pair = source()
        with _opened(out / "data" / f"source-{pair.name}", pair) as real:
            fit = Fit.of(real, seed=seed)
        made = fitted_dataset(
            path,
            fit,
            name=name,
            classes=wanted.classes,
            records=wanted.records,
            queries=QUERIES,
            zipf=wanted.zipf,
            seed=seed,
            bits=bits,
            progress=lambda done, total: progress(f"{name}: making records", done, total),
        )
        made.close()
        return path

    return DatasetTask(name, grid, make)


def _real(path: Path, source: Callable[[], Pair], bits: int | None) -> Path:
    if not _ready(path):
        pair = source()
        real_dataset(path, pair.index, pair.queries, name=path.name, bits=bits).close()
    return path


def _opened(path: Path, pair: Pair) -> Dataset:
    """The pair as a data set with all its bits."""
    if _ready(path):
        return Dataset.open(path)
    return real_dataset(path, pair.index, pair.queries, name=pair.name)


def _ready(path: Path) -> bool:
    """Whether a data set is there and whole; what is left of one that is not goes."""
    if not path.exists():
        return False
    try:
        Dataset.open(path).close()
    except DataError:
        shutil.rmtree(path)
        return False
    return True


def _given(pair: Pair) -> Pair:
    return pair


def _once(make: Callable[[], Pair]) -> Callable[[], Pair]:
    made: list[Pair] = []

    def get() -> Pair:
        if not made:
            made.append(make())
        return made[0]

    return get
