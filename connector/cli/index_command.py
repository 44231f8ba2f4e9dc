"""`semcut index`: encodes images with a trained network and stores them in a new index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcut.connector.cli.image_options import protocol_option
from semcut.connector.cli.options import PATH, device_option, json_option
from semcut.connector.cli.terminal import print_json, print_line, print_skipped, progress_bar
from semcut.connector.data import ProtocolName
from semcut.connector.models.device import keep_freed_memory
from semcut.indexes.errors import DataError

if TYPE_CHECKING:
    from semcut.connector.retrieval.image_index import Indexed

_SKIPPED_SHOWN = 20


@click.command()
@click.argument("images")
@click.option("--model", type=PATH, required=True, help="Run directory of a trained network.")
@click.option("--out", type=PATH, required=True, help="Directory of the index: new or empty.")
@click.option("--exclude-training", is_flag=True, help="Leave out the images that the network was trained on.")
@protocol_option
@click.option("--seed", default=0, show_default=True, help="Seed of the random choice by --protocol.")
@device_option
@json_option
def index(
    images: str, model: Path, out: Path, exclude_training: bool, protocol: ProtocolName | None, seed: int, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Encode all IMAGES of a folder or archive into a new index.

    The images may be in subfolders at any depth. Files that cannot be read as images are skipped and listed.
    """
    from semcut.connector.data import sources
    from semcut.connector.data.protocols import protocol_split

    if protocol is None:
        files = sources.files_under(sources.folder(images))
    else:
        if exclude_training:
            raise click.UsageError("--protocol determines which images are indexed: leave out --exclude-training")
        files = list(protocol_split(protocol, images, seed).database.files)
    if exclude_training:
        files = _without_training_images(files, model)
    result = index_with_progress(files, model, out, device)
    if as_json:
        print_json({"index": str(out), "added": result.added, "skipped": [list(pair) for pair in result.skipped]})
    else:
        print_line(f"{out}: {result.added:,} records, {len(result.skipped)} files skipped")


def index_with_progress(files: Sequence[str], model: Path, out: Path, device: str = "cpu") -> Indexed:
    """Encode image files into a new index; show a progress bar, and print the files that were skipped.

    Raises:
        DataError: there are no files.
        CheckpointError, IndexExistsError: as `Connector.create` raises them.
    """
    from semcut.connector.retrieval.image_index import Connector

    if not files:
        raise DataError("there are no images to index")
    keep_freed_memory()
    with Connector.create(out, model, device=device) as connector, progress_bar("Indexing") as progress:
        result = connector.add_files(files, progress=progress)
    print_skipped(result.skipped, at_most=_SKIPPED_SHOWN)
    return result


def _without_training_images(files: Sequence[str], model: Path) -> list[str]:
    from semcut.connector.models.checkpoint import Checkpoint

    trained = set(Checkpoint.load(model).training_images())
    return [file for file in files if file not in trained]
