"""A data set of a benchmark from real encodings: two indexes that `semcut index` has made, records and queries.

A prefix of a hash code is a hash code: each bit of Eq. 3 is a threshold of its own, so the first 32 bits of a 64-bit
code are a code of 32 bits, though one that its network was not trained for, and whose number of ones is less even.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.dataset import About, Dataset, begin, finish, shape
from semcut.connector.data.labels import labels_by_id
from semcut.connector.data.sources import balanced_sample, class_of
from semcut.connector.retrieval.model_link import network_classes
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.errors import DataError

_BATCH = 10_000


def real_dataset(
    path: Path,
    index_path: Path,
    queries_path: Path,
    *,
    name: str,
    bits: int | None = None,
    limit_queries: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Copy two stored indexes to a data set, with ids from 0 in order of their ids.

    Labels are positions in the classes of the network that made the index, or, if it is not there any more, in the
    sorted names of all class folders, which must be as many as there are probabilities.

    Args:
        path: a new or empty directory.
        index_path: index of the records; its uris end in class-folder/file.
        queries_path: index of the queries, of the same network.
        name: of the data set.
        bits: keep this many bits of each code, the first ones. Default: all.
        limit_queries: use so many of the queries, at random, evenly over the classes.
        seed: of the choice of queries.

    Raises:
        DataError: records without uris, or of other classes; indexes of different shapes; more bits than there are; an
            empty index; something at the path.
        InvalidParameterError: bits that no index can have.
        NotAnIndexError: there is no index.
    """
    with FaissIndex.open(index_path) as index, FaissIndex.open(queries_path) as queries:
        config = _config(index, queries, (index_path, queries_path), bits)
        classes = _classes(index_path, index, queries)
        labels = [_labels(source, at, classes) for source, at in ((index, index_path), (queries, queries_path))]
        chosen = [np.arange(len(index)), np.arange(len(queries))]
        if limit_queries is not None:
            chosen[1] = balanced_sample(labels[1], limit_queries, seed)
        for target, source, rows in zip(begin(path), (index, queries), chosen, strict=True):
            _copy(source, target, rows, config)
        about = About(
            name=name,
            source=f"real encodings of {len(classes)} classes",
            records=len(chosen[0]),
            queries=len(chosen[1]),
            classes=config.classes,
            bits=config.bits,
            dim=config.dim,
            seed=None if limit_queries is None else seed,
        )
        finish(path, about, labels[0].astype(np.int32), labels[1][chosen[1]].astype(np.int32))
    return Dataset.open(path)


def prefix(encodings: Encodings, bits: int) -> Encodings:
    """The encodings with the first so many bits of their codes, a multiple of 8."""
    return replace(encodings, codes=encodings.codes[:, : bits // 8])


def _config(index: FaissIndex, queries: FaissIndex, paths: tuple[Path, Path], bits: int | None) -> IndexConfig:
    """What the copies are."""
    if shape(index) != shape(queries):
        raise DataError(
            f"{paths[0]} has (classes, bits, dim) = {shape(index)} but {paths[1]} has {shape(queries)}: records and "
            "queries must be encoded by the same network"
        )
    for one, at in zip((index, queries), paths, strict=True):
        if not len(one):
            raise DataError(f"{at} is empty: index some images first")
    if bits is not None and bits > index.config.bits:
        raise DataError(f"bits = {bits}, but codes of {paths[0]} have {index.config.bits}: ask for that many at most")
    return IndexConfig(**{**index.config.model_dump(), "bits": index.config.bits if bits is None else bits})


def _classes(path: Path, *both: FaissIndex) -> tuple[str, ...]:
    """Names of the classes, in order of the probabilities."""
    known = network_classes(path)
    if known is not None and len(known) == both[0].config.classes:
        return known
    found = sorted({class_of(uri) or "" for one in both for uri in one.uris(one.ids())} - {""})
    if not found:
        raise DataError(f"no record of {path} has a uri that says its label, expected class-folder/file")
    if len(found) != both[0].config.classes:
        raise DataError(
            f"the uris name {len(found)} class folders ({', '.join(found[:5])}{', ...' * (len(found) > 5)}) "
            f"but there are {both[0].config.classes} probabilities, and the network that would say which class is "
            f"which is not where {path} says: put it back, or index images of all classes"
        )
    return tuple(found)


def _labels(index: FaissIndex, path: Path, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """(n,) labels in order of ids."""
    ids = np.sort(index.ids())
    labels = labels_by_id(index, classes)[ids]
    unknown = ids[labels < 0]
    if len(unknown):
        uri = index.uris(unknown[:1])[0]
        lie = "have no uri" if uri is None else f"lie in folders like {class_of(uri)!r}, which are none of its classes"
        raise DataError(
            f"{len(unknown)} of the {len(ids)} records of {path} {lie}: labels are the names of class folders, "
            "class-folder/file"
        )
    return labels


def _copy(source: FaissIndex, target: Path, rows: NDArray[np.int64], config: IndexConfig) -> None:
    """Copy the records at these sorted positions in order of ids, with their positions in `rows` as ids."""
    ids = np.sort(source.ids())[rows]
    with FaissIndex.create(target, config, durability="close") as copy:
        for start in range(0, len(ids), _BATCH):
            batch = source.get(ids[start : start + _BATCH])
            copy.add(replace(prefix(batch, config.bits), ids=np.arange(start, start + len(batch))))
