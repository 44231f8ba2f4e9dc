"""`semcut train`: trains a network on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from semcut.connector.cli.image_options import limit_option, protocol_option, select_images
from semcut.connector.cli.options import PATH, SOURCE, device_option, json_option
from semcut.connector.cli.terminal import (
    SKIPPED_SHOWN,
    print_json,
    print_message,
    print_skipped,
    progress_bar,
    show_facts,
)
from semcut.connector.cli.truth_options import TruthSource, ground_truth_option, labelled_by_truth
from semcut.connector.data import ProtocolName
from semcut.connector.models import MOST_EXPONENT, HeadName
from semcut.connector.models.device import keep_freed_memory
from semcut.indexes.errors import DataError

if TYPE_CHECKING:
    from semcut.connector.data.sources import ImageSet
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.models.network import Architecture
    from semcut.connector.training.train_config import TrainConfig


@click.command()
@click.argument("images", type=SOURCE)
@click.option(
    "--out", type=PATH, required=True, help="Run directory to write: a new one, or with --resume an unfinished one."
)
@click.option(
    "--backbone",
    help="small, alexnet, efficientnet_lite0 or a torchvision classification model.  [default: small for images under "
    "64 pixels; for photos efficientnet_lite0 with ImageNet weights, if the extra pretrained is installed]",
)
@click.option(
    "--weights",
    type=SOURCE,
    metavar="TEXT",
    help="Pretrained weights of the backbone: imagenet, a torchvision name like IMAGENET1K_V1, or a file.",
)
@click.option(
    "--start",
    type=PATH,
    help="Warm start: initialise from this trained network, for example one trained with --freeze or on smaller "
    "images. It must have the same backbone, bits, dim and head, and the same images, --seed and --validation; or "
    "IMAGES may have new classes, which follow those of the network.",
)
@click.option(
    "--image-size",
    type=int,
    help="Pixels per side of the scaled images.  [default: 32 for small, else 224; 128 if "
    "--backbone is left out and the images are photos]",
)
@click.option("--bits", default=64, show_default=True, help="Length of the hash code.")
@click.option("--dim", type=int, help="Length of the feature.  [default: length of the backbone's feature]")
@click.option(
    "--pooling",
    type=click.FloatRange(1, MOST_EXPONENT),
    metavar="P",
    help="Pool the backbone's last maps by the generalised mean with this exponent, such as 3, which is trained with "
    "the backbone.  [default: the pooling of the backbone, often the average]",
)
@click.option(
    "--head",
    type=click.Choice(get_args(HeadName)),
    default="paper",
    show_default=True,
    help="Loss of the hash code: the cross-entropy of the paper, CSQ, OrthoHash or DPN.",
)
@ground_truth_option(
    "Classes from right answers: what a query should find is one class with it. --limit then takes the same share of "
    "every class."
)
@click.option(
    "--others",
    is_flag=True,
    help="With --ground-truth: images that it does not name are one more class, 'none of these'; else they are left "
    "out.",
)
@limit_option
@protocol_option
@click.option("--epochs", default=30, show_default=True, help="Passes over the training images.")
@click.option("--batch-size", default=64, show_default=True, help="Images per step.")
@click.option(
    "--learning-rate", type=float, help="Highest learning rate.  [default: 0.003; with --weights or --start 0.002]"
)
@click.option(
    "--backbone-rate",
    type=float,
    help="Learning rate of the backbone, as a multiple of --learning-rate.  [default: 1; with --weights or --start "
    "0.25]",
)
@click.option(
    "--schedule", type=click.Choice(["one-cycle", "cosine"]), default="one-cycle", show_default=True,
    help="one-cycle raises the learning rate and then lowers it; cosine only lowers it.",
)  # fmt: skip
@click.option(
    "--augment",
    type=click.Choice(["none", "shift", "flip", "strong"]),
    default="flip",
    show_default=True,
    help="shift moves, scales and rotates images a little; flip also mirrors them; strong also changes colours and "
    "covers squares.",
)
@click.option(
    "--balance",
    type=int,
    metavar="N",
    help="Images of every class in an epoch: a class with fewer has them several times, each time augmented anew.  "
    "[default: each image once]",
)
@click.option(
    "--freeze",
    is_flag=True,
    help="Keep the backbone fixed and train only the layers above it: training takes minutes, but quality is lower. "
    "Needs --weights or --start. Of --augment, only the mirroring is used.",
)
@click.option(
    "--freeze-codes",
    is_flag=True,
    help="Also keep the layers of features and codes fixed, and train only the classifiers: `semcut relink` then gives "
    "an index the new classes, without encoding its images again. Needs --start.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Fit a temperature on the validation images, so that the probabilities match the accuracy.",
)
@click.option("--label-smoothing", default=0.0, show_default=True, help="Label smoothing of both losses.")
@click.option("--weight-decay", default=0.01, show_default=True, help="Weight decay of AdamW.")
@click.option("--hash-weight", default=1.0, show_default=True, help="Weight of the loss of the hash code.")
@click.option(
    "--validation", default=0.1, show_default=True, help="Share of the images held out to choose the best epoch."
)
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option("--workers", default=2, show_default=True, help="Threads that decode images.")
@device_option
@click.option(
    "--resume", is_flag=True, help="Continue a stopped run; the result is the same as that of an uninterrupted run."
)
@json_option
def train(
    images: str, out: Path, backbone: str | None, weights: str | None, start: Path | None, image_size: int | None,
    bits: int, dim: int | None, pooling: float | None, head: HeadName, ground_truth: TruthSource | None, others: bool,
    limit: int | None, protocol: ProtocolName | None,
    learning_rate: float | None, backbone_rate: float | None, resume: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train a network on labelled IMAGES.

    IMAGES is a folder or archive with one folder of images per class, a .csv or .jsonl list with the columns path and
    label, Parquet files with the columns image and label, shards of WebDataset, digits/train, or
    torchvision:NAME/train. The images of a class may be in subfolders at any depth. With --ground-truth, IMAGES are the
    images of a set in which the same thing is to be found. Every image is decoded once before the training begins; what
    cannot be read is skipped and listed.
    """
    if weights is not None and start is not None:
        raise click.UsageError("--start and --weights both set the initial weights: give only one of them")
    settings["freeze"] |= settings["freeze_codes"]
    from semcut.connector.models.network import Architecture
    from semcut.connector.training.class_growth import new_classes
    from semcut.connector.training.default_network import choose_network, require_trained_backbone
    from semcut.connector.training.train_config import TrainConfig

    if settings["freeze"] and (backbone is not None or settings["freeze_codes"]):
        require_trained_backbone(weights, start, codes=settings["freeze_codes"])
    if ground_truth is None:
        if others:
            raise click.UsageError("--others needs --ground-truth, which names the other images")
        selected = select_images(images, limit, protocol, "training", settings["seed"])
    else:
        if protocol is not None:
            raise click.UsageError("--ground-truth determines the classes: leave out --protocol")
        selected = labelled_by_truth(images, ground_truth, others=others, limit=limit, seed=settings["seed"])
    choice = choose_network(selected, backbone=backbone, weights=weights, start=start, image_size=image_size)
    weights = choice.weights
    if settings["freeze"]:
        require_trained_backbone(weights, start)
    untrained = weights is None and start is None
    architecture = Architecture(
        backbone=choice.backbone,
        classes=selected.classes,
        image_size=choice.image_size,
        bits=bits,
        dim=dim,
        head=head,
        pooling=pooling,
    )
    config = TrainConfig(
        learning_rate=(0.003 if untrained else 0.002) if learning_rate is None else learning_rate,
        backbone_rate=(1.0 if untrained else 0.25) if backbone_rate is None else backbone_rate,
        **settings,
    )
    if choice.sentence:
        print_message(choice.sentence)
    training = _readable_with_progress(selected, protocol, config.workers)
    architecture = architecture.model_copy(update={"classes": training.classes})
    added = () if start is None else new_classes(start, training.classes)
    if added:
        print_message(f"{len(added):,} new class{'es' if len(added) > 1 else ''}: {', '.join(added)}")
    checkpoint = train_with_progress(training, architecture, config, out, weights=weights, start=start, resume=resume)
    kept = checkpoint.training["kept"]
    network = {"backbone": choice.backbone, "weights": weights, "image_size": choice.image_size}
    if as_json:
        skipped = [list(pair) for pair in training.skipped]
        more = {} if start is None else {"new_classes": list(added)}
        print_json({"model": str(out), "images": len(training), **network, **more, **kept, "skipped": skipped})
        return
    show_facts(
        {
            "images": f"{len(training):,} in {len(training.classes)} classes",
            "skipped": len(training.skipped),
            "network": f"{choice.backbone}, {choice.image_size} x {choice.image_size} pixels",
            "validation accuracy": f"{kept['validation_accuracy']:.3f}",
            "validation accuracy of the hash layer": f"{kept['validation_hash_accuracy']:.3f}",
            **{
                f"validation mAP by {name}": f"{kept[key]:.3f}"
                for name, key in (("code", "validation_hamming_map"), ("relevance", "validation_relevance_map"))
                if key in kept
            },
        },
        title=f"{out}: epoch {kept['epoch']} of {config.epochs} kept",
    )


def _readable_with_progress(images: ImageSet, protocol: ProtocolName | None, workers: int) -> ImageSet:
    """Select the images that can be read; show a progress bar, and print what is left out.

    Raises:
        DataError: fewer than two classes are left, or an image of a protocol cannot be read.
    """
    from semcut.connector.data.image_contents import readable_images

    with progress_bar("Checking images") as progress:
        found = readable_images(images, workers, progress)
    print_skipped(found.skipped, at_most=SKIPPED_SHOWN)
    if protocol is not None and len(found) < len(images):
        raise DataError(
            f"{len(images) - len(found):,} images cannot be read, but {protocol} needs all of the images that it "
            "selects: restore them"
        )
    return found


def train_with_progress(
    images: ImageSet,
    architecture: Architecture,
    config: TrainConfig,
    out: Path,
    *,
    weights: str | None = None,
    start: Path | None = None,
    resume: bool = False,
) -> Checkpoint:
    """Train a network and show a progress bar; see `semcut.connector.train` for the arguments."""
    from semcut.connector.training.loop import train as run_training

    keep_freed_memory()
    with progress_bar("Training") as progress:
        return run_training(
            images, architecture, config, out, weights=weights, start=start, resume=resume, progress=progress
        )
