"""What a protocol measures of one network, query by query; measured once and kept in a file.

    OUT/PROTOCOL/NETWORK/index                  the database, as `semcut index --protocol` makes it
    OUT/PROTOCOL/NETWORK/figures.safetensors    arrays, and in its metadata what they are of

NETWORK is the name of its run directory and the beginning of the digest of its weights. An index that is being made has
another name, `unfinished`, and what is left of one is thrown away.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from semcut.connector.data import sources
from semcut.connector.data.protocols import check, parts
from semcut.connector.evaluation.rankings import CUTOFFS, Comparison, by_code, compare
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.names import ProtocolName
from semcut.connector.reproduce.baselines import baseline_codes
from semcut.connector.reproduce.frozen_encoder import FrozenEncoder
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.image_index import Connector
from semcut.connector.training.frozen_features import others_have_it
from semcut.connector.training.loop import TrainConfig
from semcut.indexes import Encodings
from semcut.indexes.errors import CheckpointError, DataError

FILE = "figures.safetensors"
KS = (100, 1000)
SHORTLIST = 100
_VERSION = 1

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Figures of one network by one protocol.

    Attributes:
        about: `name`, `protocol`, `sha256`, `architecture` and `config` of the network, `weights` of its backbone, how
            the network at its `start` was trained if there was one, the `kept` epoch, `classes`, their `names` for
            people, how many `training` images, `records` and `queries`.
        curve: a line per epoch of training, that of the network at its start first.
        labels: (nq,) int64 of the queries.
        right: (nq,) bool; whether the class of the largest probability is the query's.
        comparison: rankings at cutoffs, see `rankings`.
        baselines: AP@all (nq,) and AP@k (nq, ks) of codes that need no training, by name.
    """

    about: dict[str, Any]
    curve: list[dict[str, Any]]
    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    comparison: Comparison
    baselines: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

    def save(self, file: Path) -> None:
        """Write to a file, in one step."""
        tensors: dict[str, NDArray[Any]] = {
            name: getattr(self.comparison, name) for name in ("at_all", "at_k", "precision", "relevant", "scanned")
        }
        tensors |= {"labels": self.labels, "right": self.right}
        for name, (at_all, at_k) in self.baselines.items():
            tensors |= {f"at_all {name}": at_all, f"at_k {name}": at_k}
        content = {"version": _VERSION, "about": self.about, "curve": self.curve, "cutoffs": self.comparison.cutoffs,
                   "ks": self.comparison.ks, "baselines": list(self.baselines)}  # fmt: skip
        scratch = file.with_name(f"{file.name}.new")
        save_file(
            {name: np.ascontiguousarray(array) for name, array in tensors.items()},
            scratch,
            {"semcut_figures": json.dumps(content)},
        )
        os.replace(scratch, file)

    @staticmethod
    def load(file: Path) -> Measured:
        """Read what `save` has written.

        Raises:
            DataError: the file is damaged, or of another version.
        """
        try:
            with safe_open(file, "np") as stored:
                content = json.loads(stored.metadata()["semcut_figures"])
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            if content["version"] != _VERSION:
                raise DataError(f"{file} is of version {content['version']}, expected {_VERSION}: delete it")
            names = ("at_all", "at_k", "precision", "relevant", "scanned")
            return Measured(
                content["about"],
                content["curve"],
                arrays["labels"],
                arrays["right"],
                Comparison(tuple(content["cutoffs"]), tuple(content["ks"]), **{name: arrays[name] for name in names}),
                {name: (arrays[f"at_all {name}"], arrays[f"at_k {name}"]) for name in content["baselines"]},
            )
        except DataError:
            raise
        except Exception as error:  # safetensors has an error type of its own for broken files
            raise DataError(f"{file} cannot be read ({error}): delete it, and the network is measured again") from None


def measure(
    model: Path, source: str, protocol: ProtocolName, out: Path, *, device: str = "cpu", progress: Progress
) -> Measured:
    """Figures of a network: those that are there, or new ones.

    Args:
        model: its run directory.
        source: the data, a folder or archive.
        protocol: by which it was trained.
        out: the directory of results.
        device: to encode on.
        progress: told what is being done.

    Raises:
        CheckpointError: there is no usable network.
        DataError: it was not trained by this protocol on this data, or images cannot be read.
    """
    checkpoint = Checkpoint.load(model)
    name = f"{model.resolve().name}-{checkpoint.digest[:8]}"
    place = out / protocol / name
    if (place / FILE).is_file():
        return Measured.load(place / FILE)
    training, curve = _training(checkpoint)
    divided = parts(protocol, source, training["config"]["seed"])
    check(protocol, divided, checkpoint.training_images(), divided.database.files)

    def told(what: str) -> Callable[[int, int], None]:
        return lambda done, of: progress(f"{name}: {what}", done, of)

    if training["config"]["freeze"] and others_have_it(checkpoint.training):
        files = [*divided.database.files, *divided.queries.files]
        encoder: Encoder = FrozenEncoder(checkpoint, files, device, told("encoding all images"))
    else:
        encoder = Encoder(checkpoint, device)
    with _index(encoder, divided.database, place, told("indexing")) as connector:
        batches, rows = [], []
        for batch in connector.encoder.encode_files(divided.queries.files):
            if batch.skipped:
                raise DataError(f"the query {batch.skipped[0][0]} cannot be read: {batch.skipped[0][1]}")
            assert batch.encodings.ids is not None
            batches.append(batch.encodings)
            rows.append(batch.encodings.ids)
            told("encoding queries")(sum(map(len, rows)), len(divided.queries))
        queries, labels = Encodings.concatenate(batches), divided.queries.labels[np.concatenate(rows)]
        records = Encodings.concatenate(list(connector.index.iterate()))
        assert records.ids is not None
        record_labels = connector.labels(divided.queries.classes)[records.ids]
        comparison = compare(
            records,
            record_labels,
            queries,
            labels,
            connector.index.config,
            ks=KS,
            shortlist=SHORTLIST,
            cutoffs=CUTOFFS,
            progress=told("ranking"),
        )
    baselines: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
        method: by_code(theirs, record_labels, ours, labels, ks=KS)
        for method, (theirs, ours) in baseline_codes(
            records.features, queries.features, checkpoint.net.architecture.bits
        ).items()
    }
    about = {
        "name": name,
        "protocol": protocol,
        "sha256": checkpoint.digest,
        "architecture": checkpoint.net.architecture.model_dump(mode="json", exclude={"classes"}),
        "config": training["config"],
        "weights": training["backbone_weights"],
        "start": training.get("start"),
        "temperature": float(checkpoint.net.temperature),
        "kept": training["kept"],
        "classes": [*divided.queries.classes],
        "names": _names(Path(divided.training.files[0]).parents[2]),
        "training": len(divided.training),
        "records": len(records),
        "queries": len(queries),
    }
    right = queries.probabilities.argmax(axis=1) == labels
    found = Measured(about, curve, labels, right, comparison, baselines)
    found.save(place / FILE)
    return found


def _training(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a network was trained, with settings that are newer than it at what they were, and a line for each epoch.

    Raises:
        CheckpointError: that is not recorded.
    """
    try:
        training = dict(checkpoint.training)
        training["config"] = {**TrainConfig().model_dump(mode="json"), **training["config"]}
        training["backbone_weights"], training["kept"]["epoch"]
        return training, checkpoint.epochs()
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint.path} does not say how its network was trained ({error!r}): give a directory that semcut "
            "train has written"
        ) from None


def _names(root: Path) -> dict[str, str]:
    """Names for people by folder, from a file classes.tsv, folder and name in a line, if the data has one."""
    try:
        lines = (root / "classes.tsv").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
    return {folder: name.split(",")[0].strip() for folder, name in pairs}


def _index(encoder: Encoder, images: sources.ImageSet, place: Path, progress: Callable[[int, int], None]) -> Connector:
    """The network's index of these images, in its folder, with this encoder; made if it is not there.

    Raises:
        DataError: there is an index of other images, or an image cannot be read.
    """
    path, scratch = place / "index", place / "unfinished"
    if not path.exists():
        shutil.rmtree(scratch, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        files = list(images.files)
        with Connector.create(scratch, encoder.checkpoint.path) as connector:
            connector.encoder = encoder
            result = connector.add_files(files, progress=lambda done: progress(done, len(files)))
        if result.skipped:
            raise DataError(f"{result.skipped[0][0]} cannot be read: {result.skipped[0][1]}")
        os.replace(scratch, path)
    connector = Connector.open(path, encoder.checkpoint.path)
    connector.encoder = encoder
    if set(connector.index.uris(connector.index.ids())) != set(images.files):
        connector.close()
        raise DataError(f"{path} is an index of other images than {len(images):,} of this protocol: delete it")
    return connector
