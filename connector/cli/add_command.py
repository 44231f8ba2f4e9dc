"""`semcut add`: adds images to an index, with the network that made it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

import semcut.connector.models  # noqa: F401  # reports which packages are missing
from semcut.connector.cli.options import PATH, SOURCE, device_option, json_option, moved_model_option
from semcut.connector.cli.sync_command import dry_run_option, network_encoder
from semcut.connector.cli.terminal import SKIPPED_SHOWN, print_json, print_line, print_skipped, progress_bar
from semcut.indexes.errors import DataError

if TYPE_CHECKING:
    from semcut.indexes.attributes.attribute_types import AttributeType

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")


@click.command()
@click.argument("index", type=PATH)
@click.argument("images", type=SOURCE, nargs=-1, required=True)
@dry_run_option
@moved_model_option
@device_option
@json_option
def add(index: Path, images: tuple[str, ...], dry_run: bool, model: Path | None, device: str, as_json: bool) -> None:
    """Add IMAGES to an existing INDEX.

    IMAGES are folders, archives, lists, Parquet files, shards or single images. An image that the index has already, by
    its path or by its content, is left out; if the content of its path has changed, its record is replaced. The columns
    of lists that are attributes of INDEX become those of the images, also of images that it has. If the ids of INDEX
    are strings, the column id of a list has those of new images, which are added whatever their content is. If the
    command is interrupted, the same command adds the rest.
    """
    from semcut.connector.data import sources
    from semcut.connector.data.image_folders import ImageFolder, Skipped, warn_of_folders_in_two_classes
    from semcut.connector.retrieval.adding_files import add_paths
    from semcut.connector.retrieval.given_attributes import GivenAttributes
    from semcut.connector.retrieval.given_keys import keys_by_uri
    from semcut.connector.retrieval.indexed_files import IndexedFiles
    from semcut.connector.retrieval.model_link import require_network, required_link
    from semcut.indexes import FaissIndex
    from semcut.indexes.open_with import open_with

    link = required_link(index)
    if model is not None:
        require_network(model, link.sha256)
    types, listed = attributes_of_index(index), list[ImageFolder]()
    files: list[str] = []
    roots: list[str] = []
    skipped: list[Skipped] = []
    for source in images:
        if _is_image(source):
            files.append(str(Path(source).absolute()))
            continue
        found = sources.list_images(source, types, ids=True)
        listed.append(found)
        warn_of_folders_in_two_classes(found, stacklevel=1)
        files += found.files
        skipped += found.skipped
        roots += found.roots
    if not files:
        raise DataError(f"there are no images to add in {', '.join(images)}")
    opened, link = open_with(  # again, because another index may have replaced it since
        lambda: FaissIndex.open(index, engine="faiss"), lambda _: required_link(index)
    )
    with opened, progress_bar("Encoding", quiet=as_json) as progress:
        indexed, given = IndexedFiles(opened, index, link.root), GivenAttributes()
        named: list[str] = []
        keys: list[str] = []
        for found in listed:
            uris = [indexed.uri_of(path) for path in found.files]
            given.put(opened.config.attributes, uris, found.attributes or {})
            if found.ids is not None:
                named, keys = named + uris, keys + found.ids
        done = add_paths(
            indexed, index, files, lambda: network_encoder(index, link, model, device), progress,
            copies=opened.config.string_ids, roots=roots, work=sorted(map(os.path.abspath, images)), given=given,
            keys=keys_by_uri(opened, named, keys or None), dry_run=dry_run,
        )  # fmt: skip
        records = len(opened)
    skipped = [*done.skipped, *skipped]
    print_skipped(skipped, at_most=SKIPPED_SHOWN)
    if as_json:
        print_json(
            {
                "index": str(index), "added": done.added, "replaced": done.replaced, "known": done.known,
                "updated": done.updated,
                "skipped": [list(pair) for pair in skipped], "dry_run": dry_run, "records": records,
            }
        )  # fmt: skip
        return
    would = "would be " if dry_run else ""
    others = f", {done.updated:,} of them with other attributes now" if done.updated else ""
    print_line(
        f"{index}: {done.added:,} images {would}added, {done.replaced:,} {would}replaced, {done.known:,} known "
        f"already{others}, {len(skipped):,} skipped; {records:,} records"
    )


def attributes_of_index(index: Path) -> Mapping[str, AttributeType]:
    """Return the attributes of a stored index, with their types."""
    from semcut.indexes.storage.store import Store

    store = Store.open(index)  # opening a `FaissIndex` would also load its search engine
    try:
        return store.config.attributes
    finally:
        store.close()


def _is_image(source: str) -> bool:
    """Return whether a source is a single image: a file with the name or the header of one, not an archive."""
    from semcut.connector.data.images import UnreadableImage, stated_size

    if not Path(source).is_file():
        return False
    if source.lower().endswith(_SUFFIXES):
        return True
    try:
        stated_size(source)
    except UnreadableImage:
        return False
    return True
