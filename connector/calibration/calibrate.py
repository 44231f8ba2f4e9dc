"""Choose the cutoff and the ranking of an index, so that searches for new images lose at most a stated share.

    by labels    Right records of an image are those of its class. The cutoff is the largest that, with confidence, cuts
                 off at most a share of them (`risk_bounds`); the ranking is the one with the best mAP at this cutoff.
    by copies    Without labels, an image of the index is the right record of its copies (`image_copies`). The ranking
                 is distance, unless another finds clearly more of them.

A part of the images chooses the cutoff and the others the ranking, so that neither choice is judged by what made it.
Where keeping most of the copies means that a large share of the records must be scanned, the classes of the network do
not fit the images. Then there is no cutoff, and results are ordered by distance: a search answers as one without
semantics does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.calibration.image_copies import COPIES, copies_of
from semcut.connector.calibration.risk_bounds import CUTOFFS, images_needed, largest_cutoff
from semcut.connector.data.decode_stream import UnreadableImage
from semcut.connector.data.images import image_within
from semcut.connector.data.labels import RecordLabels
from semcut.connector.evaluation.metrics import average_precision
from semcut.connector.retrieval.image_index import Connector
from semcut.connector.retrieval.model_link import change_link, required_link
from semcut.connector.retrieval.search_defaults_of import SearchDefaults
from semcut.indexes import Encodings, SemanticIndex
from semcut.indexes.argument_checks import callback_given, instance_given, integer_given, path_given
from semcut.indexes.errors import CheckpointError, DataError, InvalidParameterError, StorageError, shown
from semcut.indexes.progress import Progress, silent
from semcut.indexes.scoring.equations import relevance
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST
from semcut.indexes.search_params import Ranking
from semcut.indexes.storage.store import Store

MISS_LABELLED, MISS_COPIES = 0.05, 0.01
"""Default shares of right records that a cutoff may lose: of the records of a class, and of copies of one image."""

CONFIDENCE = 0.95
IMAGES = 1000
"""The default number of images of an index whose copies are searched."""

FOR_CUTOFF = 0.75
"""The share of the images that chooses the cutoff."""
_MOST_SCANNED = 0.2
"""If keeping 95 % of the copies needs more of the records than this share, the classes do not fit the images."""
_CLEARLY = 0.01
"""The share of copies that another ranking must find more often than distance."""
_KEPT = 0.05
_K = 10
SHORTLISTS = (DEFAULT_SHORTLIST, 200, 400, 800, 1600)
"""The shortlists that a calibration chooses from."""
_SAME, _COMPARED = 0.98, 200  # share of the records that a shortlist has to find, and most queries that compare them
_COPY_SIDE = 1024  # pixels: no network takes larger images, and a picture of a phone is not needed whole
_BLOCK = 1 << 22  # values of R that are computed at once


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        cutoff: the chosen cutoff; None for none.
        ranking: the chosen ranking.
        shortlist: the smallest shortlist of `SHORTLISTS` with which searches find nearly the ten records that they find
            among all relevant ones; None if each misses more.
        by: "labels" or "copies".
        miss: the share of right records that a cutoff may lose.
        confidence: the probability with which `cutoff` keeps `miss` for new images.
        images: number of images that were used.
        lost: mean share of right records that the cutoff loses, among the images that chose it; 0 without a cutoff.
        scanned: mean share of the records that a search with the cutoff scans.
        scanned_for_95: the same, with the largest cutoff that keeps 95 % of the right records on average.
        fits: whether the classes of the network fit the images, see the module.
        quality: per ranking, mAP@10 by labels, or the share of copies whose image is among 10 results.
    """

    cutoff: float | None
    ranking: Ranking
    shortlist: int | None
    by: str
    miss: float
    confidence: float
    images: int
    lost: float
    scanned: float
    scanned_for_95: float
    fits: bool
    quality: dict[Ranking, float]

    @property
    def defaults(self) -> SearchDefaults:
        """The defaults of searches that follow."""
        return SearchDefaults(self.cutoff, self.ranking, self.shortlist)

    def as_dict(self) -> dict[str, Any]:
        """Return all values by name."""
        return asdict(self)


def calibrate_by_labels(
    connector: Connector,
    queries: Encodings,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    miss: float = MISS_LABELLED,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Calibration:
    """Choose cutoff and ranking by labelled images that are not in the index.

    Args:
        connector: the index.
        queries: n encodings of images like those that will be searched with.
        labels: (n,) int64, positions in `classes`.
        classes: names of the class folders.
        miss, confidence: see `Calibration`.
        seed: of the random order of the images.

    Raises:
        DataError: fewer than 20 images have records of their class in the index.
        InvalidParameterError: a share is not between 0 and 1.
    """
    level, confidence = share_given("miss", miss), share_given("confidence", confidence)
    record_labels = connector.labels(classes)
    totals = np.bincount(record_labels.labels[record_labels.labels >= 0], minlength=len(classes))
    order = np.random.default_rng(seed).permutation(np.flatnonzero(totals[labels] > 0))
    if len(order) < 20:
        raise DataError(
            f"{len(order)} of the {len(labels):,} images have records of their class in the index, expected at least "
            "20: the names of their folders must be those of the images that were indexed"
        )
    queries, labels = queries[order], labels[order]
    part = round(FOR_CUTOFF * len(order))
    losses = losses_of_classes(connector.index, record_labels, queries[:part], labels[:part])
    cutoff = largest_cutoff(losses, level, confidence)

    def precision(ranking: Ranking) -> float:
        found = connector.index.search(queries[part:], k=_K, cutoff=cutoff, ranking=ranking).ids
        right = (record_labels[found] == labels[part:, None]) & (found >= 0)
        return float(average_precision(right, np.minimum(_K, totals[labels[part:]])).mean())

    quality = {ranking: precision(ranking) for ranking in _rankings(connector.index, queries)}
    best = max(quality, key=lambda name: quality[name])
    scanned_for_95, fits = _scanned_for_95(connector.index, queries, losses)
    return Calibration(
        cutoff, best, _shortlist(connector.index, queries, cutoff, best), "labels", level, confidence, len(order),
        _lost(losses, cutoff), _scanned(connector.index, queries, cutoff), scanned_for_95, fits, quality,
    )  # fmt: skip


def calibrate_by_copies(
    connector: Connector,
    *,
    images: int = IMAGES,
    miss: float = MISS_COPIES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    progress: Progress | None = None,
    skipped: list[tuple[str, str]] | None = None,
) -> Calibration:
    """Choose cutoff and ranking by copies of images of the index, without labels.

    Args:
        connector: the index; the files of its records must be where they were.
        images: number of images that are chosen at random.
        miss, confidence: see `Calibration`.
        seed: of the choice of the images and of their copies.
        progress: called with the number of images done so far and in all.
        skipped: gets a pair (file, reason) for each image that cannot be read.

    Raises:
        DataError: fewer than 20 images can be read, or too few for the level.
        InvalidParameterError: an argument is out of range.
    """
    level, confidence = share_given("miss", miss), share_given("confidence", confidence)
    images, show = integer_given("images", images, 20), progress or silent
    callback_given("progress", progress)
    reasons = [] if skipped is None else instance_given("skipped", skipped, list)
    rng, index = np.random.default_rng(seed), connector.index
    ids = rng.permutation(index.ids())[:images]
    kept, parts = [], []
    for number, (record, path) in enumerate(zip(ids.tolist(), connector.paths(ids), strict=True)):
        show(number, len(ids))
        try:
            if path is None:
                raise UnreadableImage("the record has no uri")
            parts.append(connector.encoder.encode(copies_of(image_within(os.fspath(path), _COPY_SIDE), rng)))
            kept.append(record)
        except (UnreadableImage, DataError) as reason:
            reasons.append((str(path), str(reason)))
    show(len(ids), len(ids))
    needed = images_needed(level, confidence)
    part = round(FOR_CUTOFF * len(kept))
    if part < needed:
        raise DataError(
            f"{len(kept):,} images can be read, of which {part:,} choose the cutoff: at least {needed:,} are needed to "
            f"show with {confidence:.0%} confidence that at most {level:.1%} are lost; allow a larger share"
        )
    queries, own = Encodings.concatenate(parts), np.array(kept)
    split = COPIES * part
    losses = _losses_of_copies(index, queries[:split], own[:part])
    scanned_for_95, fits = _scanned_for_95(index, queries, losses)
    cutoff = largest_cutoff(losses, level, confidence) if fits else None

    def found(ranking: Ranking) -> float:
        ids = index.search(queries[split:], k=_K, cutoff=cutoff, ranking=ranking).ids
        return float((ids == np.repeat(own[part:], COPIES)[:, None]).any(axis=1).mean())

    quality = {ranking: found(ranking) for ranking in _rankings(index, queries)}
    best = max(quality, key=lambda name: quality[name])
    ranking: Ranking = best if fits and quality[best] > quality["distance"] + _CLEARLY else "distance"
    return Calibration(
        cutoff, ranking, _shortlist(index, queries[split:], cutoff, ranking), "copies", level, confidence, len(kept),
        _lost(losses, cutoff), _scanned(index, queries, cutoff), scanned_for_95, fits, quality,
    )  # fmt: skip


def keep_defaults(path: str | os.PathLike[str], defaults: SearchDefaults, sha256: str) -> None:
    """Make cutoff and ranking the defaults of the index in a directory; no other process changes it meanwhile.

    Args:
        path: directory of the index.
        defaults: what was chosen, `Calibration.defaults`.
        sha256: digest of the network that it was chosen with, `Checkpoint.digest`.

    Raises:
        CheckpointError: by now, another network has made the index.
        NotAnIndexError: there is no index of images any more.
        LockedError, StorageError: the index is being changed, or cannot be; nothing was changed.
    """
    place = Path(os.path.realpath(path_given("path", path)))
    store = Store.open(place)
    try:
        store.begin()
        if required_link(place).sha256 != sha256:
            raise CheckpointError(
                f"{place} got another network while it was calibrated; nothing was changed: calibrate again"
            )
        try:
            change_link(place, cutoff=defaults.cutoff, ranking=defaults.ranking, shortlist=defaults.shortlist)
        except OSError as error:
            raise StorageError(f"cannot write {error.filename or place}: {error.strerror}") from None
    finally:
        store.close()


def share_given(name: str, value: Any) -> float:
    """Return an argument that must be a number between 0 and 1.

    Raises:
        InvalidParameterError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a number between 0 and 1")
    return float(value)


def losses_of_classes(
    index: SemanticIndex, record_labels: RecordLabels, queries: Encodings, labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the share of the records of its class that each cutoff drops, for each query: (n, cutoffs)."""
    counts = np.zeros((len(queries), len(CUTOFFS) + 1), np.int64)
    weights = index.similarity.weights(queries.probabilities)
    for label in np.unique(labels).tolist():
        mine = np.flatnonzero(labels == label)
        right = record_labels.ids[record_labels.labels == label]
        step = max(1, _BLOCK // max(len(mine), index.config.classes))
        for start in range(0, len(right), step):
            probabilities = index.get(right[start : start + step]).probabilities
            first = _first_that_drops((weights[mine] @ probabilities.T.astype(np.float64)).astype(np.float32))
            for row, query in enumerate(mine):
                counts[query] += np.bincount(first[row], minlength=counts.shape[1])
    shares: NDArray[np.float64] = np.cumsum(counts, axis=1)[:, :-1] / counts.sum(axis=1, keepdims=True)
    return shares


def _losses_of_copies(index: SemanticIndex, copies: Encodings, own: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of its copies for which each cutoff drops an image: (n, cutoffs)."""
    weights = index.similarity.weights(copies.probabilities)
    first = _first_that_drops(relevance(weights, np.repeat(index.get(own).probabilities, COPIES, axis=0)))
    lost = first[:, None] <= np.arange(len(CUTOFFS))
    shares: NDArray[np.float64] = lost.reshape(len(own), COPIES, -1).mean(axis=1)
    return shares


def _first_that_drops(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the position of the first cutoff that drops each relevance; the number of cutoffs if none does."""
    positions: NDArray[np.int64] = np.searchsorted(CUTOFFS.astype(np.float32), values, side="left")
    return positions


def _lost(losses: NDArray[np.float64], cutoff: float | None) -> float:
    return 0.0 if cutoff is None else float(losses[:, int(np.searchsorted(CUTOFFS, cutoff))].mean())


def _scanned(index: SemanticIndex, queries: Encodings, cutoff: float | None) -> float:
    """Return the mean share of the records that a search with a cutoff scans."""
    if cutoff is None:
        return 1.0
    found = index.search(queries, k=1, cutoff=cutoff, shortlist=1, fill=False)
    return float(found.codes.mean() / len(index))


def _scanned_for_95(index: SemanticIndex, queries: Encodings, losses: NDArray[np.float64]) -> tuple[float, bool]:
    """Return the share of the records to scan with the largest cutoff that loses 5 %, and whether that is little."""
    enough = np.flatnonzero(losses.mean(axis=0) <= _KEPT)
    share = _scanned(index, queries, float(CUTOFFS[enough[-1]])) if len(enough) else 1.0
    return share, share <= _MOST_SCANNED


def _shortlist(index: SemanticIndex, queries: Encodings, cutoff: float | None, ranking: Ranking) -> int | None:
    """Return the smallest shortlist that finds `_SAME` of the records that are found without one; None if none does."""
    some = queries[:_COMPARED]
    settings: dict[str, Any] = {"k": _K, "cutoff": cutoff, "ranking": ranking}
    every = index.search(some, shortlist=None, **settings).ids
    for shortlist in SHORTLISTS:
        if shortlist >= len(index):
            return shortlist
        found = index.search(some, shortlist=shortlist, **settings).ids
        same = (every[:, :, None] == found[:, None]) & (every >= 0)[:, :, None]
        if same.sum() >= _SAME * np.count_nonzero(every >= 0):
            return shortlist
    return None


def _rankings(index: SemanticIndex, queries: Encodings) -> list[Ranking]:
    """Return the rankings that an index and its queries allow."""
    fused: list[Ranking] = ["fused"] if index.stats().normalised and queries.normalised() else []
    return ["distance", *fused, "relevance"]
