"""Measure a network by a protocol: index the database, search with all queries, compare rankings and baselines.

    OUT/PROTOCOL/NETWORK/index                  the index of the database, the same as `semcut index --protocol` makes
    OUT/PROTOCOL/NETWORK/figures.safetensors    the measurement, see `network_measurements`

A network that has a file of figures is not measured again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data import ProtocolName, sources
from semcut.connector.data.protocols import ProtocolSplit, check_protocol, protocol_split
from semcut.connector.evaluation.hash_code_quality import code_average_precision
from semcut.connector.evaluation.rankings import CUTOFFS, compare
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture
from semcut.connector.reproduce.baselines import baseline_codes
from semcut.connector.reproduce.frozen_encoder import FrozenEncoder
from semcut.connector.reproduce.measured_index import open_measured_index, with_task
from semcut.connector.reproduce.network_measurements import FIGURES_FILE, KS, SHORTLIST, Baselines, Measurement
from semcut.connector.reproduce.results_folder import check_results
from semcut.connector.reproduce.stored_facts import require_facts
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training.frozen_features import has_shared_backbone
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import Encodings
from semcut.indexes.errors import CheckpointError, DataError, shown
from semcut.indexes.progress import Progress
from semcut.indexes.regular_files import read_bytes

_NAMES_BYTES = 16 << 20
"""The largest file with the readable names of classes."""


def measure_network(
    model: Path, source: str, protocol: ProtocolName, out: Path, *, device: str = "cpu", progress: Progress
) -> Measurement:
    """Measure a network, or read its measurement if it was measured before.

    Args:
        model: run directory of the network.
        source: the data, a folder or archive.
        protocol: the protocol by which the network was trained.
        out: the directory of results.
        device: device that the network encodes on.
        progress: called with the number of images or queries that are done; the task names the network and the step.

    Raises:
        CheckpointError: `model` holds no usable network, or does not record how the network was trained.
        DataError: the network was not trained by this protocol on this data, or images cannot be read, or `out` is no
            directory of results, or has figures of another network under the name of this one.
    """
    checkpoint = Checkpoint.load(model)
    name = f"{model.resolve().name}-{checkpoint.digest[:8]}"
    folder = out / protocol / name
    check_results(out)
    if os.path.lexists(folder / FIGURES_FILE):
        return _measured(folder / FIGURES_FILE, checkpoint)
    training, curve = training_of(checkpoint)
    images = protocol_split(protocol, source, training["config"]["seed"])
    check_protocol(protocol, images, checkpoint.training_digests().all, images.database.files)

    about = _about(name, protocol, checkpoint, training, images)
    try:
        require_facts(about, curve)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _no_record(checkpoint, error) from None

    def step(what: str) -> Progress:
        return with_task(progress, f"{name}: {what}")

    if training["config"]["freeze"] and has_shared_backbone(checkpoint.training):
        files = [*images.database.files, *images.queries.files]
        encoder: Encoder = FrozenEncoder(checkpoint, files, device, step("encoding all images"))
    else:
        encoder = Encoder(checkpoint, device)
    database = images.database
    with open_measured_index(
        encoder, database.files, database.roots, out, folder, step("indexing"), unreadable="refused"
    ) as connector:
        queries, labels = _encode_queries(encoder, images.queries, step("encoding queries"))
        records = Encodings.concatenate(list(connector.index.iterate()))
        assert records.ids is not None
        record_labels = connector.labels(images.queries.classes)[records.ids]
        comparison = compare(
            records,
            record_labels,
            queries,
            labels,
            connector.index.config,
            ks=KS,
            shortlist=SHORTLIST,
            cutoffs=CUTOFFS,
            progress=step("ranking"),
        )
    bits = checkpoint.net.architecture.bits
    baselines: Baselines = {
        method: code_average_precision(record_codes, record_labels, query_codes, labels, ks=KS)
        for method, (record_codes, query_codes) in baseline_codes(records.features, queries.features, bits).items()
    }
    measurement = Measurement(
        about,
        curve,
        labels,
        queries.probabilities.argmax(axis=1) == labels,
        comparison,
        baselines,
    )
    measurement.save(folder / FIGURES_FILE)
    return measurement


def training_of(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read how a network was trained: its settings, and the metrics of each epoch.

    Settings that did not exist when the network was trained get their defaults, which mean what was done then.

    Raises:
        CheckpointError: the checkpoint does not record how the network was trained.
    """
    try:
        training = dict(checkpoint.training)
        training["config"] = {**TrainConfig().model_dump(mode="json"), **training["config"]}
        training["backbone_weights"], training["kept"]["epoch"]  # raises a KeyError now, not after the measurement
        return training, checkpoint.epochs()
    except (KeyError, TypeError) as error:
        raise _no_record(checkpoint, error) from None


def _no_record(checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.path} does not say how its network was trained ({shown(error)}): give a directory that semcut "
        "train has written"
    )


def _measured(file: Path, checkpoint: Checkpoint) -> Measurement:
    """Read the measurement of a network; raise `DataError` if the file has that of another network."""
    found = Measurement.load(file)
    expected = {"sha256": checkpoint.digest, "architecture": _architecture(checkpoint),
                "classes": [*checkpoint.net.architecture.classes]}  # fmt: skip
    for name, value in expected.items():
        given = found.about[name]
        if name == "architecture":  # settings that did not exist when it was stored have their defaults
            given = Architecture(**{**given, "classes": found.about["classes"]}).model_dump(
                mode="json", exclude={"classes"}
            )
        if given != value:
            raise DataError(
                f"{file} has the figures of another network than {checkpoint.path} ({name} differs): delete it, and "
                "the network is measured again"
            )
    return found


def _architecture(checkpoint: Checkpoint) -> dict[str, Any]:
    return checkpoint.net.architecture.model_dump(mode="json", exclude={"classes"})


def _encode_queries(
    encoder: Encoder, images: sources.ImageSet, progress: Progress
) -> tuple[Encodings, NDArray[np.int64]]:
    """Encode the queries of a protocol; return their encodings and (nq,) labels.

    Raises:
        DataError: an image cannot be read.
    """
    batches, positions = [], []
    for batch in encoder.encode_files(images.files):
        if batch.skipped:
            raise DataError(f"the query {batch.skipped[0][0]} cannot be read: {batch.skipped[0][1]}")
        assert batch.encodings.ids is not None
        batches.append(batch.encodings)
        positions.append(batch.encodings.ids)
        progress(sum(map(len, positions)), len(images))
    return Encodings.concatenate(batches), images.labels[np.concatenate(positions)]


def _about(
    name: str,
    protocol: ProtocolName,
    checkpoint: Checkpoint,
    training: dict[str, Any],
    images: ProtocolSplit,
) -> dict[str, Any]:
    """Describe a network and the images that it was measured on: see `Measurement.about`."""
    return {
        "name": name,
        "protocol": protocol,
        "sha256": checkpoint.digest,
        **settings_of(checkpoint, training),
        "temperature": float(checkpoint.net.temperature),
        "kept": training["kept"],
        "classes": [*images.queries.classes],
        "names": _class_names(Path(images.training.files[0]).parents[2]),
        "training": len(images.training),
        "records": len(images.database),
        "queries": len(images.queries),
    }


def settings_of(checkpoint: Checkpoint, training: dict[str, Any]) -> dict[str, Any]:
    """Describe how a network was trained: `architecture`, `config`, `weights` and `start`, see `Measurement.about`."""
    return {
        "architecture": _architecture(checkpoint),
        "config": training["config"],
        "weights": training["backbone_weights"],
        "start": training.get("start"),
    }


def _class_names(root: Path) -> dict[str, str]:
    """Read the readable names of classes, by folder name; empty if the data has no file `classes.tsv`.

    Each line of the file has a folder name, a tab, and names of the class separated by commas; the first name is used.
    """
    try:
        lines = read_bytes(root / "classes.tsv", _NAMES_BYTES, follow=True).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
    return {folder: name.split(",")[0].strip() for folder, name in pairs}
