"""Create a data set from two indexes that `semcut index` has written: one of records, one of labelled queries.

Codes can be cut to their first bits. Eq. 3 decides each bit by a comparison of its own, so the first 32 bits of a
64-bit code are a code of 32 bits too. The network was not trained for this code, and its number of ones is less
balanced.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.data_origin import origin_of_snapshots, with_bits
from semcut.connector.benchmark.datasets.dataset import (
    About,
    Dataset,
    config_of_queries,
    finish_dataset,
    shape,
    start_dataset,
)
from semcut.connector.data.image_folders import class_of, classes_of
from semcut.connector.data.image_uris import path_of, paths_of
from semcut.connector.data.labels import labels_by_id
from semcut.connector.data.sources import balanced_sample
from semcut.connector.retrieval.model_link import network_classes, read_link
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.errors import DataError, StorageError
from semcut.indexes.unfinished import unfinished

_BATCH = 10_000


def dataset_from_indexes(
    path: Path,
    index_path: Path,
    queries_path: Path,
    *,
    name: str,
    bits: int | None = None,
    limit_queries: int | None = None,
    seed: int = 0,
    origin: str | None = None,
) -> Dataset:
    """Copy two stored indexes into a data set; the new ids count from 0 in order of the ids in the source.

    A label is the position of a class in the network that made the index. If that network cannot be found any more, a
    label is a position in the sorted names of all class folders; there must be as many of these as probabilities.

    Args:
        path: a new or empty directory.
        index_path: index of the records; its uris end in class-folder/file.
        queries_path: index of the queries, encoded by the same network.
        name: name of the data set.
        bits: keep only this many first bits of each code. Default: all.
        limit_queries: keep at most this many queries, drawn at random and balanced over the classes. Default: all.
        seed: seed of the choice of queries.
        origin: what `About.origin` says. Default: a digest of both indexes.

    Raises:
        DataError: records have no uris or belong to other classes; the indexes have different shapes or are empty; the
            codes have fewer bits; the path is in use.
        InvalidParameterError: no index can have that many bits.
        NotAnIndexError: one of the two directories holds no index.
        StorageError: one of the two indexes was replaced meanwhile.
    """
    paths = (index_path, queries_path)
    with FaissIndex.open(index_path) as index, FaissIndex.open(queries_path) as queries:
        config = _config_of_copies(index, queries, (index_path, queries_path), bits)
        classes = _class_names((index_path, queries_path), index, queries)
        labels = [_labels(source, at, classes) for source, at in ((index, index_path), (queries, queries_path))]
        chosen = [np.arange(len(index)), np.arange(len(queries))]
        if limit_queries is not None:
            chosen[1] = balanced_sample(labels[1], limit_queries, seed)
        of = origin or with_bits(origin_of_snapshots(paths, (index.snapshot, queries.snapshot)), bits)
        for source, at in ((index, index_path), (queries, queries_path)):
            if not source.in_place:  # the link that was read may be that of another index
                raise StorageError(f"{at} was replaced or deleted meanwhile: begin again")
        configs = (config, config_of_queries(config))
        for target, source, rows, each in zip(start_dataset(path), (index, queries), chosen, configs, strict=True):
            _copy(source, target, rows, each)
        about = About(
            name=name,
            source=f"recorded encodings of {len(classes)} classes",
            records=len(chosen[0]),
            queries=len(chosen[1]),
            classes=config.classes,
            bits=config.bits,
            dim=config.dim,
            seed=None if limit_queries is None else seed,
            origin=of,
        )
        finish_dataset(path, about, labels[0].astype(np.int32), labels[1][chosen[1]].astype(np.int32))
    return Dataset.open(path)


def _config_of_copies(
    index: FaissIndex, queries: FaissIndex, paths: tuple[Path, Path], bits: int | None
) -> IndexConfig:
    """Return the configuration of both copies, after checking that the two indexes match."""
    if shape(index) != shape(queries):
        raise DataError(
            f"{paths[0]} has (classes, bits, dim) = {shape(index)} but {paths[1]} has {shape(queries)}: records and "
            "queries must be encoded by the same network"
        )
    for one, at in zip((index, queries), paths, strict=True):
        if not len(one):
            raise DataError(f"{at} is empty: index some images first")
        missing = unfinished(at, len(one))
        if missing is not None:
            raise DataError(f"{missing}: index the images again")
    if bits is not None and bits > index.config.bits:
        raise DataError(f"bits = {bits}, but codes of {paths[0]} have {index.config.bits}: choose at most that many")
    return IndexConfig(**{**index.config.model_dump(), "bits": index.config.bits if bits is None else bits})


def _roots(path: Path) -> tuple[tuple[str, ...], str | None]:
    """Return the folders of class folders that an index records, and the folder to which its uris are relative."""
    link = read_link(path)
    return ((), None) if link is None else (link.roots, link.root)


def _class_names(paths: tuple[Path, Path], *both: FaissIndex) -> tuple[str, ...]:
    """Return the names of the classes, in order of the probabilities."""
    path = paths[0]
    known = network_classes(path)
    if known is not None and len(known) == both[0].config.classes:
        return known
    folders = zip(both, map(_roots, paths), strict=True)
    named = (classes_of(paths_of(one.uris(one.ids()), root), roots) for one, (roots, root) in folders)
    found = sorted({name or "" for names in named for name in names} - {""})
    if not found:
        raise DataError(f"no record of {path} has a uri that names its label, expected class-folder/file")
    if len(found) != both[0].config.classes:
        raise DataError(
            f"the uris name {len(found)} class folders ({', '.join(found[:5])}{', ...' * (len(found) > 5)}) "
            f"but there are {both[0].config.classes} probabilities, and the network that knows the order of the "
            f"classes is not where {path} says: move it back, or index images of all classes"
        )
    return tuple(found)


def _labels(index: FaissIndex, path: Path, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the (n,) labels of all records in order of ids."""
    ids = index.ids()
    labels = labels_by_id(index, classes, *_roots(path))[ids]
    unknown = ids[labels < 0]
    if len(unknown):
        roots, root = _roots(path)
        uri = path_of(index.uris(unknown[:1])[0], root)
        reason = (
            "have no uri"
            if uri is None
            else f"are in folders like {class_of(uri, roots)!r}, which are not classes of the index"
        )
        raise DataError(
            f"{len(unknown)} of the {len(ids)} records of {path} {reason}: labels are the names of class folders, "
            "class-folder/file"
        )
    return labels


def _copy(source: FaissIndex, target: Path, rows: NDArray[np.int64], config: IndexConfig) -> None:
    """Copy the records at these sorted positions in order of ids; their new ids are 0 to len(rows) - 1."""
    ids = source.ids()[rows]
    with FaissIndex.create(target, config, durability="close") as copy:
        for start in range(0, len(ids), _BATCH):
            batch = source.get(ids[start : start + _BATCH])
            copy.add(replace(_first_bits(batch, config.bits), ids=np.arange(start, start + len(batch)), any_mass=True))


def _first_bits(encodings: Encodings, bits: int) -> Encodings:
    """Cut the codes to their first bits, a multiple of 8."""
    return replace(encodings, codes=encodings.codes[:, : bits // 8], any_mass=True)
