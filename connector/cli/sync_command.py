"""`semcut sync`: brings an index in step with the folder of its images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

import semcut.connector.models  # noqa: F401  # reports which packages are missing
from semcut.connector.cli.options import PATH, SOURCE, device_option, json_option, moved_model_option
from semcut.connector.cli.terminal import SKIPPED_SHOWN, print_json, print_skipped, progress_bar, show_facts
from semcut.indexes.errors import DataError

if TYPE_CHECKING:
    from semcut.connector.retrieval.encoder import Encoder
    from semcut.connector.retrieval.folder_sync import Synced
    from semcut.connector.retrieval.given_attributes import GivenAttributes
    from semcut.connector.retrieval.indexed_files import IndexedFiles
    from semcut.connector.retrieval.model_link import ModelLink
    from semcut.indexes import FaissIndex
    from semcut.indexes.progress import Progress

dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")


@click.command()
@click.argument("index", type=PATH)
@click.argument("folder", type=PATH, required=False)
@dry_run_option
@click.option(
    "--attributes",
    type=SOURCE,
    metavar="LIST",
    help="A list of images, .csv or .jsonl: its columns that are attributes of INDEX become those of the records.",
)
@click.option("--reencode", is_flag=True, help="Encode all images again, with the network of --model.")
@moved_model_option
@device_option
@json_option
def sync(
    index: Path, folder: Path | None, dry_run: bool, attributes: str | None, reencode: bool, model: Path | None,
    device: str, as_json: bool,
) -> None:  # fmt: skip
    """Bring INDEX in step with the FOLDER of its images.

    Adds new images, replaces those that have changed, moves the records of renamed ones, and removes records whose
    image is gone. FOLDER is the folder that was indexed, unless another one is given. If the command is interrupted,
    the same command does the rest. If nothing has changed, no network is loaded. Attributes of records are kept;
    --attributes changes those of the images in LIST, which are not encoded again for that.

    With --reencode, --model may be another network, with codes and features of the same lengths. All images are encoded
    by it, in a new index that replaces INDEX at the end, in one step; records keep their ids.
    """
    from semcut.connector.retrieval.folder_changes import folder_given
    from semcut.connector.retrieval.folder_sync import sync_folder
    from semcut.connector.retrieval.given_attributes import GivenAttributes
    from semcut.connector.retrieval.indexed_files import IndexedFiles
    from semcut.connector.retrieval.model_link import require_network, required_link
    from semcut.indexes import FaissIndex
    from semcut.indexes.open_with import open_with

    if reencode and model is None:
        raise click.UsageError("--reencode encodes all images again: give the network with --model")
    index = Path(os.path.realpath(index)) if reencode else index
    opened, link = open_with(lambda: FaissIndex.open(index, engine="faiss"), lambda _: required_link(index))
    with opened, progress_bar("Encoding", quiet=as_json) as progress:
        if model is not None:
            require_network(model, None if reencode else link.sha256)
        given = link.folder if folder is None else str(folder)
        if given is None:
            raise DataError(f"{index} does not record the folder of its images: give FOLDER")
        path = folder_given(given, link.folder)
        files = IndexedFiles(opened, index, link.root)
        files.given = GivenAttributes() if attributes is None else _listed(files, attributes)
        if reencode and model is not None:
            done = _reencoded(opened, index, path, model, device, progress, files.given, dry_run)
        else:
            done = sync_folder(
                files, index, path, lambda: network_encoder(index, link, model, device), progress,
                whole=path == link.folder, dry_run=dry_run, network=model,
            )  # fmt: skip
        records = done.added + done.replaced + done.moved if reencode and not dry_run else len(opened)
    print_skipped(done.skipped, at_most=SKIPPED_SHOWN)
    if as_json:
        print_json({"index": str(index), **done.as_dict(), "dry_run": dry_run, "records": records})
        return
    facts = {
        "added": done.added,
        "encoded again" if reencode else "replaced, because the file has changed": done.replaced,
        "moved with their file": done.moved,
        **({} if attributes is None else {"given other attributes": done.updated}),
        "removed, because the file is gone": done.removed,
        "unchanged": done.unchanged,
        "unchanged, of files with a new time": done.touched,
        "not in the folder, left alone": done.others,
        "encoded by the network": done.encoded,
        "files skipped": len(done.skipped),
    }
    what = "would be in step with" if dry_run else "is in step with"
    show_facts(facts, title=f"{index} {what} {done.folder}: records")


def _reencoded(
    opened: FaissIndex, index: Path, folder: str, model: Path, device: str, progress: Progress,
    given: GivenAttributes, dry_run: bool,
) -> Synced:  # fmt: skip
    """Encode all images of a folder with another network; errors as for `reencode_folder`."""
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.models.device import keep_freed_memory
    from semcut.connector.retrieval.encoder import Encoder
    from semcut.connector.retrieval.reencoding import reencode_folder

    keep_freed_memory()
    return reencode_folder(
        opened, index, folder, lambda: Encoder(Checkpoint.load(model), device), progress, given=given, dry_run=dry_run
    )


def _listed(files: IndexedFiles, source: str) -> GivenAttributes:
    """Read the attributes of the files of a list.

    Raises:
        DataError: it is no list, or has none of the attributes of the index.
    """
    from semcut.connector.data import sources
    from semcut.connector.retrieval.given_attributes import GivenAttributes

    types, given = files.index.config.attributes, GivenAttributes()
    found = sources.list_images(source, types)
    if not found.attributes:
        known = ", ".join(types) or "none"
        raise DataError(f"{source} is no list with attributes of the index, which are: {known}")
    given.put(types, [files.uri_of(path) for path in found.files], found.attributes)
    print_skipped(found.skipped, at_most=SKIPPED_SHOWN)
    return given


def network_encoder(index: Path, link: ModelLink, model: Path | None, device: str) -> Encoder:
    """Load the network of an index, when the first image has to be encoded.

    Raises:
        CheckpointError, DataError: as for `linked_encoder`.
    """
    from semcut.connector.models.device import keep_freed_memory
    from semcut.connector.retrieval.linked_network import linked_encoder

    keep_freed_memory()
    return linked_encoder(index, link, model, device)
