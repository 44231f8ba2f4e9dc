"""`semcut index --to`: encodes images into a collection on a Milvus server, instead of into a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcut.connector.cli.terminal import SKIPPED_SHOWN, print_skipped, progress_bar
from semcut.connector.models.device import keep_freed_memory
from semcut.indexes.errors import DataError

if TYPE_CHECKING:
    from semcut.connector.data.image_folders import Skipped
    from semcut.connector.retrieval.adding_files import Indexed


class PartType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --part: 3/8 is the third of eight parts."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return number and count."""
        number, _, count = str(value).partition("/")
        if not (number.isascii() and number.isdigit() and count.isascii() and count.isdigit() and len(value) < 20):
            self.fail(f"{value!r} is no part: expected i/n, such as 3/8 for the third of eight", param, ctx)
        if not 1 <= int(number) <= int(count):
            self.fail(f"{value!r} is no part: expected a number from 1 to {int(count)} before the /", param, ctx)
        return int(number), int(count)


def index_collection(
    files: Sequence[str],
    model: Path,
    uri: str | None,
    collection: str,
    *,
    roots: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
    device: str = "cpu",
    token: str | None = None,
    part: tuple[int, int] | None = None,
    quiet: bool = False,
) -> tuple[Indexed, int]:
    """Encode image files into a collection; show a progress bar, and print what was skipped.

    Args:
        files: paths of the files.
        model: run directory of the network.
        uri, collection, token: where the collection is, see `MilvusIndex.create`.
        roots: folders whose folders are the classes of the images.
        skipped: what was left out when the files were listed.
        device: device that runs the network.
        part: number and count of the part to encode; None for all files.
        quiet: whether to show no progress.

    Returns:
        What was done, and the number of records of the collection.

    Raises:
        DataError: there are no files; or a part of an embedded file, or of files without a common folder, is asked for.
        CheckpointError, NotAnIndexError: as for `open_to_fill`.
    """
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.retrieval.encoder import Encoder
    from semcut.connector.retrieval.filled_collection import WHOLE, Part, fill_collection, open_to_fill
    from semcut.connector.retrieval.image_index import defaults_of
    from semcut.indexes.milvus.address import is_file, resolve_address

    if not files:
        raise DataError("there are no images to index")
    if part is not None and is_file(str(resolve_address(uri))):
        raise DataError("several processes cannot write an embedded Milvus file at once: leave --part out")
    keep_freed_memory()
    encoder = Encoder(Checkpoint.load(model), device)
    chosen = WHOLE if part is None else Part(*part)
    with (
        open_to_fill(uri, collection, encoder, roots, defaults_of(encoder), token=token, part=chosen) as index,
        progress_bar("Indexing", quiet=quiet) as progress,
    ):
        result = fill_collection(index, encoder, files, roots, progress, chosen)
        records = len(index)
    print_skipped([*result.skipped, *skipped], at_most=SKIPPED_SHOWN)
    return result, records
