"""The sub-commands that need a network: train, index, search, demo. Thin: the work is in the library."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.markup import escape
from rich.table import Table

from semcut.connector.cli.app import ERR, OUT, PATH, print_json
from semcut.connector.cli.options import images_of, json_option, progress, protocol_option, search_options, show_table
from semcut.connector.models.allocator import keep_freed_memory
from semcut.connector.models.names import HeadName, ProtocolName
from semcut.indexes.errors import DataError

if TYPE_CHECKING:
    from semcut.connector.data.sources import ImageSet
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.models.network import Architecture
    from semcut.connector.retrieval.image_index import Hit, Indexed
    from semcut.connector.training.loop import TrainConfig
    from semcut.indexes.scanners.protocol import EngineName


@click.command()
@click.argument("images")
@click.option(
    "--out", type=PATH, required=True, help="Run directory to write: new, or with --resume an unfinished one."
)
@click.option(
    "--backbone",
    default="small",
    show_default=True,
    help="small, alexnet, efficientnet_lite0 or a torchvision classification model.",
)
@click.option("--weights", help="Weights of the backbone to start from: imagenet, a name of torchvision's, or a file.")
@click.option(
    "--start",
    type=PATH,
    help="Start from this trained network, of the same backbone, bits, dim and head: one made with --freeze, or of "
    "smaller images.",
)
@click.option("--image-size", type=int, help="Pixels a side.  [default: 32 for small, else 224]")
@click.option("--bits", default=64, show_default=True, help="Length of the hash code.")
@click.option("--dim", type=int, help="Length of the feature.  [default: the backbone's own]")
@click.option(
    "--head",
    type=click.Choice(get_args(HeadName)),
    default="paper",
    show_default=True,
    help="What the hash code is trained for: the paper's cross-entropy, CSQ, OrthoHash or DPN.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use so many of the images, evenly over the classes.")
@protocol_option
@click.option("--epochs", default=30, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--learning-rate", type=float, help="Highest of the schedule.  [default: 0.003; from weights 0.002]")
@click.option("--backbone-rate", type=float, help="Its share for the backbone.  [default: 1; from weights 0.25]")
@click.option("--schedule", type=click.Choice(["one-cycle", "cosine"]), default="one-cycle", show_default=True)
@click.option(
    "--augment",
    type=click.Choice(["none", "shift", "flip", "strong"]),
    default="flip",
    show_default=True,
    help="shift moves, scales and turns a little; flip also mirrors; strong also changes colours and covers parts.",
)
@click.option(
    "--freeze",
    is_flag=True,
    help="Leave the backbone as it is: a start in minutes, of less quality; of --augment it takes the mirroring only.",
)
@click.option("--calibrate", is_flag=True, help="Fit on the validation part how sure the network may be.")
@click.option("--label-smoothing", default=0.0, show_default=True)
@click.option("--weight-decay", default=0.01, show_default=True, help="Of AdamW.")
@click.option("--hash-weight", default=1.0, show_default=True, help="Weight of the hash branch's loss.")
@click.option("--validation", default=0.1, show_default=True, help="Share of the images kept to choose the epoch.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Threads that decode images.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:0.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run in the directory ended, to the same result.")
@json_option
def train(
    images: str, out: Path, backbone: str, weights: str | None, start: Path | None, image_size: int | None,
    bits: int, dim: int | None, head: HeadName, limit: int | None, protocol: ProtocolName | None,
    learning_rate: float | None, backbone_rate: float | None, resume: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train a network on labelled IMAGES.

    IMAGES is a folder or tar archive of class folders, digits/train, or torchvision:NAME/train.
    """
    if weights is not None and start is not None:
        raise click.UsageError("--start and --weights both say where to start: leave out one")
    from semcut.connector.models.network import Architecture
    from semcut.connector.training.loop import TrainConfig

    fresh = weights is None and start is None
    found = images_of(images, limit, protocol, "training", settings["seed"])
    architecture = Architecture(
        backbone=backbone,
        classes=found.classes,
        image_size=(32 if backbone == "small" else 224) if image_size is None else image_size,
        bits=bits,
        dim=dim,
        head=head,
    )
    config = TrainConfig(
        learning_rate=(0.003 if fresh else 0.002) if learning_rate is None else learning_rate,
        backbone_rate=(1.0 if fresh else 0.25) if backbone_rate is None else backbone_rate,
        **settings,
    )
    checkpoint = _train(found, architecture, config, out, weights, start, resume)
    kept = checkpoint.training["kept"]
    if as_json:
        print_json({"model": str(out), "images": len(found), **kept})
        return
    show_table(
        f"{out}: epoch {kept['epoch']} of {config.epochs} kept",
        {
            "images": f"{len(found):,} in {len(found.classes)} classes",
            "validation accuracy": f"{kept['validation_accuracy']:.3f}",
            "validation accuracy of the hash layer": f"{kept['validation_hash_accuracy']:.3f}",
            **{
                f"validation mAP by {name}": f"{kept[key]:.3f}"
                for name, key in (("code", "validation_hamming_map"), ("relevance", "validation_relevance_map"))
                if key in kept
            },
        },
    )


def _train(
    images: ImageSet,
    architecture: Architecture,
    config: TrainConfig,
    out: Path,
    weights: str | None,
    start: Path | None,
    resume: bool,
) -> Checkpoint:
    from semcut.connector.training.loop import train as run_training

    keep_freed_memory()
    with progress() as bar:
        task = bar.add_task("Training", total=None)

        def report(epoch: int, seen: int, of: int, loss: float) -> None:
            bar.update(task, total=of * config.epochs, completed=of * epoch + seen,
                       description=f"Training, epoch {epoch + 1}/{config.epochs}, loss {loss:.3f}")  # fmt: skip

        return run_training(
            images, architecture, config, out, weights=weights, start=start, resume=resume, progress=report
        )


@click.command()
@click.argument("images")
@click.option("--model", type=PATH, required=True, help="Run directory of a trained network.")
@click.option("--out", type=PATH, required=True, help="Directory of the index to make: new or empty.")
@click.option("--exclude-training", is_flag=True, help="Leave out the images that the network was trained on.")
@protocol_option
@click.option("--seed", default=0, show_default=True, help="Of what the protocol draws.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:0.")
@json_option
def index(
    images: str, model: Path, out: Path, exclude_training: bool, protocol: ProtocolName | None, seed: int, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Encode all IMAGES of a folder or archive into a new index.

    They may lie at any depth.
    """
    from semcut.connector.data import sources
    from semcut.connector.data.protocols import parts

    if protocol is None:
        files = sources.files_under(sources.folder(images))
    else:
        if exclude_training:
            raise click.UsageError("--protocol says what is in the index: leave out --exclude-training")
        files = list(parts(protocol, images, seed).database.files)
    result = _index(files, model, out, exclude_training, device)
    if as_json:
        print_json({"index": str(out), "added": result.added, "skipped": [list(pair) for pair in result.skipped]})
    else:
        OUT.print(f"{escape(str(out))}: {result.added:,} records, {len(result.skipped)} files skipped", highlight=False)


def _index(files: list[str], model: Path, out: Path, exclude_training: bool, device: str) -> Indexed:
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.retrieval.image_index import Connector

    keep_freed_memory()
    if exclude_training:
        trained = set(Checkpoint.load(model).training_images())
        files = [file for file in files if file not in trained]
    if not files:
        raise DataError("there are no images to index")
    with Connector.create(out, model, device=device) as connector, progress() as bar:
        task = bar.add_task("Indexing", total=len(files))
        result = connector.add_files(files, progress=lambda done: bar.update(task, completed=done))
    for file, reason in result.skipped[:20]:
        ERR.print(f"skipped {escape(file)}: {escape(reason)}", highlight=False, soft_wrap=True)
    if len(result.skipped) > 20:
        ERR.print(f"skipped {len(result.skipped) - 20} more")
    return result


@click.command()
@click.argument("index", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@search_options(k=5)
@click.option("--picture", type=PATH, help="Write a contact sheet of the results to this PNG file.")
@json_option
def search(
    index: Path, images: tuple[Path, ...], model: Path | None, device: str, picture: Path | None, as_json: bool,
    **settings: Any,
) -> None:  # fmt: skip
    """Find the records of INDEX most like each of the IMAGES."""
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes.scanners.protocol import VARIABLE

    # Loading the compiled engine takes longer than it saves on the queries of one command.
    engine: EngineName = "auto" if os.environ.get(VARIABLE) else "faiss"
    with Connector.open(index, model, device=device, engine=engine) as connector:
        found = connector.search(images, **settings)
    if picture is not None:
        _picture([str(image) for image in images], found, picture)
    if as_json:
        print_json(
            [
                {"image": str(image), "hits": [asdict(hit) for hit in hits]}
                for image, hits in zip(images, found, strict=True)
            ]
        )
        return
    for image, hits in zip(images, found, strict=True):
        table = Table("id", "distance", "relevance", "score", "hamming", title=str(image))
        table.add_column("uri", overflow="fold")
        for hit in hits:
            table.add_row(
                str(hit.id), f"{hit.distance:.4f}", f"{hit.relevance:.3f}", f"{hit.score:.3f}", str(hit.hamming),
                escape(hit.uri or ""),
            )  # fmt: skip
        OUT.print(table if hits else f"{escape(str(image))}: no record is relevant above the cutoff")


def _picture(images: Sequence[str], found: Sequence[Sequence[Hit]], target: Path) -> None:
    from semcut.connector.data.sources import class_of
    from semcut.connector.retrieval.contact_sheet import Tile, contact_sheet

    rows = [
        (
            Tile(image, class_of(image), ("query", class_of(image) or "")),
            [
                Tile(hit.uri or "", class_of(hit.uri), (f"d {hit.distance:.3f}", f"R {hit.relevance:.3f}"))
                for hit in hits[:5]
            ],
        )
        for image, hits in zip(images, found, strict=True)
    ]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(rows).save(target, "PNG", optimize=True)
    except OSError as error:
        raise DataError(f"cannot write the picture {target}: {error.strerror or error}") from None
    ERR.print(f"picture: {escape(str(target))}", highlight=False)


@click.command()
@click.option("--out", type=PATH, default=Path("demo"), show_default=True, help="Where model, index and picture go.")
@click.option("--seed", default=0, show_default=True)
@json_option
def demo(out: Path, seed: int, as_json: bool) -> None:
    """Try everything once on scanned digits, in about a minute.

    Trains a network on scikit-learn's digits, indexes and searches them, evaluates that and draws a picture.
    """
    from semcut.connector.cli.evaluate_command import encoded, measured, report
    from semcut.connector.data import sources
    from semcut.connector.data.labels import LINK
    from semcut.connector.models.network import Architecture
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.training.loop import TrainConfig

    training, queries = sources.load("digits/train"), sources.load("digits/test")
    ERR.print(f"{len(training)} scans of digits to train on and to index, {len(queries)} others as queries")
    architecture = Architecture(backbone="small", classes=training.classes, image_size=16)
    config = TrainConfig(epochs=25, augment="shift", seed=seed)
    _train(training, architecture, config, out / "model", None, None, resume=True)
    if (out / "index" / LINK).is_file():
        shutil.rmtree(out / "index")
    _index(list(training.files), out / "model", out / "index", False, "cpu")
    with Connector.open(out / "index") as connector:
        examples = []
        for file in map(Path, queries.sample(6, seed).files):
            copy = out / "queries" / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            examples.append(str(shutil.copyfile(file, copy)))
        _picture(examples, connector.search(examples, k=5), out / "digits.png")
        encodings, labels = encoded(connector, queries)
        result = measured(
            connector, queries.classes, encodings, labels, k=10, cutoff=0.2, shortlist=100, ranking="fused"
        )
    if as_json:
        print_json({"model": str(out / "model"), "index": str(out / "index"), **result.as_dict()})
        return
    report(result)
    OUT.print(f"\nNow try: semcut search {out / 'index'} {examples[0]}", highlight=False, soft_wrap=True)
