"""`adopt`: make a model directory of a network that exists, without training it.

1. The network is found and its weights are loaded, see `named_network`.
2. It computes logits and features of a sample of images, the same whose features are to be searched.
3. A shorter feature and codes are fitted to the sample, see `code_fitting`; or a head is trained, see `head_fitting`.
4. For a network without classes, each class gets a vector, given or the mean of a few labelled images, and the
   probabilities are a softmax of cosines. Their temperature is fitted, see `training.calibration`.
5. All of it becomes a checkpoint, which encodes, indexes and is evaluated as one that semcut trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from semcut.connector.adoption.code_fitting import LEAST_IMAGES, LinearMap, fit_projection, fit_reduction
from semcut.connector.adoption.head_fitting import fit_head
from semcut.connector.adoption.named_network import Hints, NamedNetwork, named_network, pool_by
from semcut.connector.adoption.sample import Sample, Sampler, class_means, cosines, left_out_cosines, unit
from semcut.connector.data.class_names import classes_given
from semcut.connector.data.file_arguments import files_given
from semcut.connector.data.label_sets import require_one_label
from semcut.connector.data.sources import ImageSet
from semcut.connector.models import CodeName, HeadName
from semcut.connector.models.adopted_network import AdoptedArchitecture, Exponent, Scales
from semcut.connector.models.backbones import Channels
from semcut.connector.models.checkpoint import Checkpoint, disk_errors
from semcut.connector.models.trusted_networks import needs_trust, trust
from semcut.connector.training.calibration import fit_temperature
from semcut.indexes.argument_checks import callback_given, instance_given, possible_path_given
from semcut.indexes.array_checks import array_of
from semcut.indexes.config import Settings
from semcut.indexes.errors import CheckpointError, InvalidParameterError, shown
from semcut.indexes.progress import Progress, silent

SAMPLE = 500
"""The largest number of images that codes are fitted to; more make no difference that can be measured."""
DIM = 128
"""Length of the feature where none is given, if the network's is longer."""
_BATCH = 16


class AdoptionChoices(Settings):
    """What a user chooses for an adopted network; None leaves the choice to `adopt`.

    Attributes:
        codes: how features become codes. By default "itq", or "rotation" if there are fewer than 200 images.
        bits: length of the code.
        dim: length of the feature; 0 for all of it. By default 128 if there are 200 images.
        classes: names of the network's classes, or of the vectors.
        vectors: (C, D) numbers, one vector for each class, for a network that has no classes; or "means", for the means
            of the labelled images.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1].
        image_size: pixels per side of the images.
        weights: file of the weights, or a name that the library knows.
        logits, features: names of outputs of a file of ONNX.
        pooling: exponent of the generalised mean that features are pooled by, see `models.pooling`.
        whitening: how far the reduction evens out the variances of its components: 0 not at all, 1 wholly.
        scales: shares of the image size that the network sees each image at, see `models.scales`.
        seed: of the sample, and of what is drawn.
    """

    codes: CodeName | None = None
    bits: int = Field(default=64, ge=32, le=1024, multiple_of=8)
    dim: int | None = Field(default=None, ge=0, le=65_536)
    classes: tuple[str, ...] | None = None
    vectors: Any = None
    mean: Channels | None = None
    std: Channels | None = None
    image_size: int | None = Field(default=None, ge=8, le=1024)
    weights: str | None = None
    logits: str | None = None
    features: str | None = None
    pooling: Exponent | None = None
    whitening: float = Field(default=0.0, ge=0, le=1)
    scales: Scales = (1.0,)
    seed: int = Field(default=0, ge=0)

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> tuple[str, ...] | None:
        return None if value is None else classes_given("classes", value, least=2)


class Adopted(NamedTuple):
    """The network that was adopted, how many images it was fitted to, and what was guessed of it, a sentence each."""

    checkpoint: Checkpoint
    images: int
    assumed: tuple[str, ...]


def adopt(
    network: str | os.PathLike[str] | Callable[[torch.Tensor], Any],
    path: str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]] = (),
    *,
    labelled: ImageSet | None = None,
    choices: AdoptionChoices | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Adopted:
    """Make a model directory of a network that exists.

    Args:
        network: the network, see `named_network`; or a function that turns pixels into logits and features.
        path: a new or empty directory for the network.
        images: files like those that will be indexed; at most 500 of them, drawn at random, are used.
        labelled: labelled images: for codes of a trained head, for means as vectors, and for the temperature.
        choices: what is chosen; None chooses everything.
        device: device that the network runs on.
        progress: called with the number of images that the network has seen.

    Raises:
        InvalidParameterError, MissingDependencyError, CheckpointError, DataError: as `named_network` raises them; or a
            choice does not fit the network or the images; or the network computes numbers that are not finite.
    """
    choices = instance_given("choices", AdoptionChoices() if choices is None else choices, AdoptionChoices)
    if labelled is not None:
        instance_given("labelled", labelled, ImageSet)
        require_one_label(labelled.files, labelled.label_sets, "adopting a network")
    place = Path(possible_path_given("path", path))
    with disk_errors(place):
        there = place.exists() and (not place.is_dir() or any(place.iterdir()))
    if there:
        raise CheckpointError(f"{place} exists already and is not an empty directory: choose another path")
    files = _drawn(files_given("images", images), choices.seed)
    means = isinstance(choices.vectors, str)
    if means and choices.vectors != "means":
        raise InvalidParameterError(f"vectors = {shown(choices.vectors)}, expected an array or means")
    if labelled is None and (means or choices.codes in get_args(HeadName)):
        raise InvalidParameterError("codes of a trained head, and means as vectors, need labelled images: give some")
    hints = Hints(choices.weights, choices.image_size, choices.logits, choices.features, choices.vectors is None)
    found = named_network(network, hints)
    found = replace(found, mean=choices.mean or found.mean, std=choices.std or found.std)
    callback_given("progress", progress)
    if choices.pooling is not None:
        pool_by(found, choices.pooling)
    sampler = Sampler(found, choices.scales, device, progress or silent)
    known = None if labelled is None else sampler.sample(labelled.files, labelled.labels)
    fitted_to = known if known is not None and not files else sampler.sample(files)
    classes, vectors = _semantics(found, choices, fitted_to, known, labelled)
    codes = _codes(choices, fitted_to, known)
    architecture = AdoptedArchitecture(
        source=found.source,
        name=found.name,
        settings=found.settings,
        classes=classes,
        image_size=found.image_size,
        width=fitted_to.directions.shape[1],
        dim=None if codes.reduction is None else len(codes.reduction.bias),
        mean=found.mean,
        std=found.std,
        vectors=vectors is not None,
        source_classes=None if vectors is None else fitted_to.logits.shape[1] or None,
        bits=choices.bits,
        head=codes.head,
        pooling=choices.pooling,
        scales=choices.scales,
    )
    temperature = _temperature(vectors, means, classes, sampler, fitted_to, known, labelled)
    weights = {f"source.{name}": value for name, value in found.network.state_dict().items()}
    for name, linear in (("reduction", codes.reduction), ("hash", codes.projection)):
        if linear is not None:
            weights |= {f"{name}.weight": torch.tensor(linear.weight), f"{name}.bias": torch.tensor(linear.bias)}
    if vectors is not None:
        weights["vectors"] = torch.tensor(vectors)
    weights["temperature"] = torch.tensor(temperature, dtype=torch.float64)
    named = getattr(network, "__qualname__", None) or str(network)
    about = {"network": named, "images": len(fitted_to), "codes": codes.head}
    digest = Checkpoint.save(place, architecture, weights, {"config": {}, "kept": {}, "start": {}, "adopted": about})
    if needs_trust(found.source):
        trust(digest)
    return Adopted(Checkpoint.load(place), len(fitted_to), found.assumed)


def _drawn(files: Sequence[str], seed: int) -> list[str]:
    """Draw the files of the sample."""
    if len(files) <= SAMPLE:
        return list(files)
    chosen = np.random.default_rng(seed).choice(len(files), SAMPLE, replace=False)
    return [files[place] for place in np.sort(chosen)]


class _Codes(NamedTuple):
    """How features become codes, the map to the shorter feature if there is one, and that to the outputs."""

    head: CodeName
    reduction: LinearMap | None
    projection: LinearMap


def _codes(choices: AdoptionChoices, fitted_to: Sample, known: Sample | None) -> _Codes:
    """Fit the shorter feature and the codes."""
    count, width = fitted_to.directions.shape
    enough = count >= LEAST_IMAGES
    dim = choices.dim if choices.dim is not None else DIM if enough and width > DIM else 0
    if choices.whitening and not dim:
        raise InvalidParameterError(
            f"whitening = {choices.whitening:g} needs features that PCA reduces: give {LEAST_IMAGES} images or more, "
            "or a dim"
        )
    reduction = fit_reduction(fitted_to.directions, dim, choices.whitening) if dim else None
    head: CodeName = choices.codes or ("itq" if enough and choices.bits <= (dim or width) else "rotation")
    if head == "itq" or head == "rotation" or head == "equation3":
        features = unit(fitted_to.directions if reduction is None else reduction.apply(fitted_to.directions))
        return _Codes(head, reduction, fit_projection(features, choices.bits, head, choices.seed))
    assert known is not None
    assert known.labels is not None
    features = unit(known.directions if reduction is None else reduction.apply(known.directions))
    return _Codes(head, reduction, fit_head(features, known.labels, choices.bits, head, choices.seed))


def _semantics(
    found: NamedNetwork, choices: AdoptionChoices, fitted_to: Sample, known: Sample | None, labelled: ImageSet | None
) -> tuple[tuple[str, ...], NDArray[np.float32] | None]:
    """Return the names of the classes, and their vectors if the network has no classes of its own."""
    width = fitted_to.directions.shape[1]
    if isinstance(choices.vectors, str):
        assert known is not None
        assert labelled is not None
        return labelled.classes, class_means(known, len(labelled.classes))
    if choices.vectors is not None:
        vectors = array_of("vectors", choices.vectors, "f", (None, width), -1e9, 1e9).astype(np.float32)
        if choices.classes is None:
            raise InvalidParameterError("vectors need the names of their classes: give classes (--classes)")
        count, what = len(vectors), "vectors"
    else:
        vectors, count, what = None, fitted_to.logits.shape[1], "logits"
        if not count:
            raise InvalidParameterError("the network has no logits: give vectors of classes, or means (--vectors)")
    names = choices.classes if choices.classes is not None else found.classes
    classes = classes_given(
        "classes", [f"class {number}" for number in range(count)] if names is None else names, least=2
    )
    if len(classes) != count:
        raise InvalidParameterError(f"classes = {len(classes):,} names, but the network has {count:,} {what}")
    return classes, vectors


def _temperature(
    vectors: NDArray[np.float32] | None,
    means: bool,
    classes: tuple[str, ...],
    sampler: Sampler,
    fitted_to: Sample,
    known: Sample | None,
    labelled: ImageSet | None,
) -> float:
    """Fit the temperature: to labels if they are of the network's classes; for vectors, else, to mirrored images.

    The temperature of logits without labels is 1. A network whose images are mirrored should be as sure of the class as
    it is likely to name it again; for vectors there is nothing else that says how sure it is.
    """
    place = {name: number for number, name in enumerate(classes)}
    if known is not None and labelled is not None and all(name in place for name in labelled.classes):
        assert known.labels is not None
        labels = np.array([place[name] for name in labelled.classes])[known.labels]
        if means:
            logits, several = left_out_cosines(known, len(classes))
            return _fitted(logits[several], labels[several], 100.0)
        scale = 1.0 if vectors is None else 100.0
        return _fitted(known.logits if vectors is None else cosines(known.directions, vectors), labels, scale)
    if vectors is None:
        return 1.0
    mirrored = sampler.sample(fitted_to.files, mirror=True)
    labels = cosines(fitted_to.directions, vectors).argmax(axis=1)
    return _fitted(cosines(mirrored.directions, vectors), labels, 100.0)


def _fitted(logits: NDArray[np.float32], labels: NDArray[np.int64], scale: float) -> float:
    """Fit a temperature; cosines are scaled, because the limits of the fit are for logits."""
    if not len(logits):
        return 1 / scale
    return fit_temperature(torch.from_numpy(logits * np.float32(scale)), torch.from_numpy(labels)) / scale
