"""`semcut adopt`: makes a model directory of a network that exists, without training it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, get_args

import click

from semcut.connector.cli.options import PATH, SOURCE, device_option, json_option
from semcut.connector.cli.terminal import (
    SKIPPED_SHOWN,
    print_json,
    print_message,
    print_skipped,
    progress_bar,
    show_facts,
)
from semcut.connector.models import LEAST_SCALE, MOST_EXPONENT, MOST_SCALES, CodeName
from semcut.indexes.errors import DataError

_TEXT_BYTES, _VECTOR_BYTES = 16 << 20, 4 << 30


class ChannelsType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --mean and --std: three numbers, separated by commas."""

    name = "r,g,b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the numbers."""
        try:
            red, green, blue = map(float, value.split(",")) if isinstance(value, str) else value
        except (ValueError, TypeError):
            self.fail(f"{value!r}, expected three numbers such as 0.485,0.456,0.406", param, ctx)
        return red, green, blue


class ScalesType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --scales: numbers, separated by commas."""

    name = "s,s,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the numbers."""
        try:
            scales = tuple(map(float, value.split(","))) if isinstance(value, str) else value
        except ValueError:
            scales = ()
        if not scales or not all(LEAST_SCALE <= scale <= 1 for scale in scales) or len(scales) > MOST_SCALES:
            self.fail(
                f"{value!r}, expected up to {MOST_SCALES} shares from {LEAST_SCALE} to 1 such as 1,0.7,0.5", param, ctx
            )
        return scales


@click.command()
@click.argument("network", type=SOURCE)
@click.option("--out", type=PATH, required=True, help="Directory to write the network to: new or empty.")
@click.option(
    "--images", type=SOURCE, help="Folder, archive or list of images like those to index; codes are fitted to them."
)
@click.option(
    "--labelled",
    type=SOURCE,
    help="Folder or archive with one folder of images per class, or list with labels: for codes of a trained head, for "
    "--vectors means, and for the temperature of the probabilities.",
)
@click.option("--weights", type=SOURCE, metavar="TEXT", help="File of the weights, or a name that the library knows.")
@click.option("--classes", type=PATH, help="Text file with the name of a class in each line, in order of the logits.")
@click.option("--image-size", type=click.IntRange(8, 1024), help="Pixels per side of the network's images.")
@click.option("--mean", type=ChannelsType(), help="Mean of each channel, for pixels from 0 to 1.")
@click.option("--std", type=ChannelsType(), help="Standard deviation of each channel, for pixels from 0 to 1.")
@click.option("--logits", help="Name of the output of a file of ONNX that has the logits.")
@click.option("--features", help="Name of the output, or of any value, of a file of ONNX that is the feature.")
@click.option(
    "--vectors",
    type=SOURCE,
    metavar="FILE|means",
    help="For a network without classes: a .npy file with one vector for each of --classes, or means for the means of "
    "the --labelled images.",
)
@click.option(
    "--codes",
    type=click.Choice(get_args(CodeName)),
    help="How features become codes: fitted (itq), drawn at random (rotation), by Eq. 3 (equation3), or by a head "
    "trained on the --labelled images.  [default: itq; rotation for fewer than 200 images]",
)
@click.option("--bits", default=64, show_default=True, help="Length of the hash code.")
@click.option(
    "--dim",
    type=click.IntRange(0, 65_536),
    help="Length that features are reduced to by PCA; 0 leaves them as they are.  [default: 128 if they are longer and "
    "there are 200 images]",
)
@click.option(
    "--pooling",
    type=click.FloatRange(1, MOST_EXPONENT),
    metavar="P",
    help="Pool the features by the generalised mean with this exponent, such as 3, in place of the average.",
)
@click.option(
    "--whitening",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="How far PCA evens out what differs much between the images, fitted to them: 0.5 by half, 1 wholly.",
)
@click.option(
    "--scales",
    type=ScalesType(),
    default="1",
    show_default=True,
    metavar="S,S,...",
    help="Shares of the image size that the network sees each image at, such as 1,0.7,0.5.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@device_option
@json_option
def adopt(
    network: str, out: Path, images: str | None, labelled: str | None, classes: Path | None, vectors: str | None,
    device: str, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Adopt a NETWORK that exists, without training it.

    NETWORK is efficientnet_lite0, 1 or 2; a classification model of torchvision with --weights; timm:NAME with
    --weights; a directory of timm or of transformers; a file .onnx; or a Python function as module:function, which
    takes pixels and returns logits and features. A directory or a file that has one of these names is given as ./NAME.
    The network stays as it is: what is added are shorter features, hash codes and, for a network without classes,
    probabilities.
    """
    from semcut.connector.adoption.adopt import AdoptionChoices
    from semcut.connector.adoption.adopt import adopt as adopt_network
    from semcut.connector.data import sources

    choices = AdoptionChoices(
        classes=None if classes is None else _lines(classes),
        vectors=vectors if vectors in (None, "means") else _array(Path(str(vectors))),
        **settings,
    )
    files: list[str] = []
    if images is not None:
        found = sources.list_images(images)
        print_skipped(found.skipped, at_most=SKIPPED_SHOWN)
        files = found.files
        if not files:
            raise DataError(f"there are no images in {images}")
    known = None if labelled is None else sources.load(labelled)
    with progress_bar("Adopting") as progress:
        adopted = adopt_network(network, out, files, labelled=known, choices=choices, device=device, progress=progress)
    for sentence in adopted.assumed:
        print_message(f"{network}: {sentence}")
    if not adopted.images:
        print_message("no images were given, so codes are drawn at random, which finds less: give --images")
    net = adopted.checkpoint.net
    facts = {
        "network": net.architecture.backbone,
        "image size": net.architecture.image_size,
        "classes": len(net.architecture.classes),
        "feature": net.dim,
        "bits": net.architecture.bits,
        "codes": net.architecture.head,
        "fitted to images": adopted.images,
        "temperature": round(float(net.temperature), 4),
    }
    if as_json:
        print_json({"model": str(out), **facts, "assumed": list(adopted.assumed)})
    else:
        show_facts(facts, title=str(out))


def _lines(file: Path) -> tuple[str, ...]:
    """Read the lines of a text file.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    from semcut.indexes.regular_files import read_bytes

    try:
        lines = read_bytes(file, _TEXT_BYTES, follow=True).decode().splitlines()
        return tuple(line for line in lines if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the names of classes in {file}: {getattr(error, 'strerror', error)}") from None


def _array(file: Path) -> Any:
    """Read an array of numpy; no pickled code in it is run.

    Raises:
        DataError: it cannot be read, or is no array.
    """
    import numpy as np

    from semcut.connector.exchange.numpy_files import array_header
    from semcut.indexes.regular_files import open_binary

    try:
        with open_binary(file, max_bytes=_VECTOR_BYTES, follow=True) as stream:
            shape, _, dtype = array_header(stream)
            expected, found = math.prod(shape) * dtype.itemsize, os.fstat(stream.fileno()).st_size - stream.tell()
            if dtype.hasobject or min(shape, default=0) < 0 or expected != found:  # before numpy takes memory for it
                raise ValueError(f"its header says {shape} of {dtype}, {expected:,} bytes, and there are {found:,}")
            stream.seek(0)
            return np.load(stream, allow_pickle=False)
    except Exception as error:  # numpy evaluates the header as text of Python, which can fail in many ways
        reason = str(getattr(error, "strerror", None) or error).partition("\n")[0][:200]
        raise DataError(f"cannot read vectors in {file}: {reason}") from None
