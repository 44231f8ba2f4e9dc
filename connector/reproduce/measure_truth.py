"""Measure a network on a set with ground truth: index the images, calibrate, compare rankings, and time searches.

    OUT/FORM/NETWORK/index           the index of the images, without those that the network was trained on
    OUT/FORM/NETWORK/figures.json    the measurement, see `truth_measurement`

A network that has a file of figures is not measured again. What calibration chose becomes the defaults of the index.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.measure import machine
from semcut.connector.calibration.calibrate import calibrate_by_copies, keep_defaults
from semcut.connector.data.image_contents import digests_of
from semcut.connector.data.sources import list_images
from semcut.connector.evaluation.judged_rankings import compare_rankings
from semcut.connector.evaluation.judged_search import compare_searches
from semcut.connector.ground_truth import TruthForm
from semcut.connector.ground_truth.read_truth import read_ground_truth
from semcut.connector.ground_truth.truth_classes import landmark_of
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.reproduce.measure_network import settings_of, training_of
from semcut.connector.reproduce.measured_index import open_measured_index, with_task
from semcut.connector.reproduce.query_times import query_times
from semcut.connector.reproduce.results_folder import check_results
from semcut.connector.reproduce.truth_measurement import TRUTH_FILE, Chosen, TruthMeasurement
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.image_index import Connector
from semcut.connector.retrieval.truth_queries import encode_truth_queries
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress
from semcut.indexes.search_defaults import DEFAULT_K
from semcut.indexes.search_params import SearchParams


def measure_truth(
    model: Path, source: str, form: TruthForm, truth_source: str | None, out: Path, *, device: str, progress: Progress
) -> TruthMeasurement:
    """Measure a network on a set, or read its measurement if it was measured before.

    Args:
        model: run directory of the network: trained, or adopted.
        source: the images of the set.
        form, truth_source: the ground truth, as for `read_ground_truth`.
        out: the directory of results.
        device: device that the network encodes on.
        progress: called with the number of images, queries or rankings that are done; the task names the step.

    Raises:
        CheckpointError: `model` holds no usable network.
        DataError: the images or the ground truth cannot be used, or `out` is no directory of results, or has figures of
            another network under the name of this one.
    """
    checkpoint = Checkpoint.load(model)
    name = f"{model.resolve().name}-{checkpoint.digest[:8]}"
    folder = out / form / name
    check_results(out)
    if os.path.lexists(folder / TRUTH_FILE):
        return _measured(folder / TRUTH_FILE, checkpoint)
    about = _about(name, checkpoint)
    images = list_images(source)
    truth = read_ground_truth(form, truth_source, images.files)
    files = _untrained(images.files, checkpoint)

    def step(what: str) -> Progress:
        return with_task(progress, f"{name}: {what}")

    encoder = Encoder(checkpoint, device)
    opened = open_measured_index(encoder, files, images.roots, out, folder, step("indexing"), unreadable="left out")
    with opened as connector:
        judged, queries, _ = encode_truth_queries(connector, truth, images, step("encoding queries"))
        chosen = _calibrated(connector, step("calibrating"))
        params = SearchParams(
            k=DEFAULT_K, fill=True,
            **({"cutoff": None} if isinstance(chosen, str) else vars(chosen.defaults)),
        )  # fmt: skip
        levels, trapezoid = judged.levels, truth.trapezoid
        curves = compare_rankings(connector.index, queries, levels, trapezoid=trapezoid, progress=step("ranking"))
        searches = compare_searches(
            connector.index, queries, levels, params, trapezoid=trapezoid, progress=step("searching")
        )
        times, records = query_times(connector.index, queries, params), len(connector.index)
    if not isinstance(chosen, str):
        keep_defaults(folder / "index", chosen.defaults, checkpoint.digest)
    facts = machine.describe()
    measurement = TruthMeasurement(
        form=form,
        sentence=judged.coverage.sentence(form),
        about=about,
        records=records,
        trained=len(images.files) - len(files),
        first_four=truth.first_four,
        queries=list(judged.names),
        landmarks=[landmark_of(truth, query) for query in judged.names],
        curves={
            level: {ranking: _rows(at_all) for ranking, at_all in rankings.items()}
            for level, rankings in curves.at_all.items()
        },
        relevant=curves.relevant.tolist(),
        scanned=curves.scanned.tolist(),
        chosen=chosen,
        searches={
            level: {
                name: (_mean(one.at_all[level]), _mean(one.at_k[level]), _mean(one.first_four[level]))
                for name, one in searches.items()
            }
            for level in levels
        },
        times=times,
        machine=f"{facts['cores']} cores of {facts['processor']}",
    )
    measurement.save(folder / TRUTH_FILE)
    return measurement


def _about(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    about = {"name": name, "sha256": checkpoint.digest, "classes": len(checkpoint.net.architecture.classes)}
    if isinstance(checkpoint.net, AdoptedNet):
        return about
    return {**about, **settings_of(checkpoint, training_of(checkpoint)[0])}


def _untrained(files: list[str], checkpoint: Checkpoint) -> list[str]:
    """Return the files that the network was not trained on, by their content; all for a network that was adopted."""
    if isinstance(checkpoint.net, AdoptedNet):
        return files
    trained = checkpoint.training_digests().all
    if not trained:
        return files
    kept = [file for file, digest in zip(files, digests_of(files), strict=True) if digest not in trained]
    if not kept:
        raise DataError(f"{checkpoint.path} was trained on all {len(files):,} images: there is nothing to search")
    return kept


def _measured(file: Path, checkpoint: Checkpoint) -> TruthMeasurement:
    found = TruthMeasurement.load(file)
    if found.about["sha256"] != checkpoint.digest:
        raise DataError(
            f"{file} has the figures of another network than {checkpoint.path}: delete it, and the network is measured "
            "again"
        )
    return found


def _calibrated(connector: Connector, progress: Progress) -> Chosen | str:
    """Choose cutoff and ranking by copies of images of the index; return the reason if that cannot be done."""
    try:
        found = calibrate_by_copies(connector, progress=progress)
    except DataError as reason:
        return str(reason)
    return Chosen(
        cutoff=found.cutoff, ranking=found.ranking, shortlist=found.shortlist, lost=found.lost, scanned=found.scanned,
        fits=found.fits, images=found.images,
    )  # fmt: skip


def _rows(at_all: NDArray[np.float64]) -> list[list[float | None]]:
    """Return (t, nq) figures as lists that JSON can hold, with None for nan."""
    return [[None if value != value else value for value in row] for row in np.round(at_all, 9).tolist()]


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the queries that count; None if there are none."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else None
