"""The index of a network in a directory of results: made once, and used again by later runs.

It is made in a directory named `unfinished`, which is renamed to `index` at the end. Such a directory from an
interrupted run is deleted, unless it has something that semcut does not write there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from semcut.connector.own_folders import INDEX_OF_IMAGES, delete_parts, require_directory
from semcut.connector.reproduce.results_folder import MAKER, begin_results
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.image_index import Connector
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.atomic_write import sync_to_disk


def open_measured_index(
    encoder: Encoder,
    files: Sequence[str],
    roots: Sequence[str],
    out: Path,
    folder: Path,
    progress: Progress,
    *,
    unreadable: Literal["refused", "left out"],
) -> Connector:
    """Open the index of a network in the directory of results; make the index first if it does not exist.

    Args:
        encoder: the network; the connector uses this encoder.
        files, roots: the images of the index, and the folders whose folders are their classes.
        out: the directory of results.
        folder: the folder of the network in the directory of results.
        progress: called with the number of images that were encoded.
        unreadable: what happens to images that cannot be read.

    Raises:
        DataError: the folder holds an index of other images, or something that would be deleted and that semcut did not
            write, or an image cannot be read and is not left out, or none can be read.
    """
    path, scratch = folder / "index", folder / "unfinished"
    if not require_directory(path, MAKER):
        begin_results(out)
        delete_parts(scratch, INDEX_OF_IMAGES, MAKER)
        folder.mkdir(parents=True, exist_ok=True)
        with Connector.create(scratch, encoder.checkpoint.path, roots=roots) as connector:
            connector.encoder = encoder
            result = connector.add_files(files, progress=progress)
        if result.skipped and (unreadable == "refused" or not result.added):
            raise DataError(f"{result.skipped[0][0]} cannot be read: {result.skipped[0][1]}")
        os.replace(scratch, path)
        sync_to_disk(folder)
    connector = Connector.open(path, encoder.checkpoint.path)
    connector.encoder = encoder
    found = set(connector.paths(connector.index.ids()))
    if not found <= set(files) or (unreadable == "refused" and len(found) < len(set(files))):
        connector.close()
        raise DataError(f"{path} is an index of other images than these {len(files):,}: delete the index")
    return connector


def with_task(progress: Progress, name: str) -> Progress:
    """Create a callback that calls `progress` with this name as the task."""

    def report(done: int, total: int, task: str = "") -> None:
        progress(done, total, name)

    return report
