"""`semcut index`: encodes images with a trained network and stores them in a new index."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcut.connector.cli.image_options import protocol_option
from semcut.connector.cli.index_collection import PartType, index_collection
from semcut.connector.cli.options import (
    PATH,
    SOURCE,
    AttributeOption,
    attributes_named,
    device_option,
    json_option,
)
from semcut.connector.cli.terminal import (
    SKIPPED_SHOWN,
    print_json,
    print_line,
    print_message,
    print_skipped,
    progress_bar,
)
from semcut.connector.data import ProtocolName
from semcut.connector.models.device import keep_freed_memory
from semcut.indexes.errors import DataError, IndexExistsError, SemcutWarning

if TYPE_CHECKING:
    from semcut.connector.data.image_folders import Skipped
    from semcut.connector.retrieval.adding_files import Indexed
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes.attributes.attribute_types import AttributeType

    Listed = tuple[Sequence[str], Mapping[str, list[Any]]]


@click.command()
@click.argument("images", type=SOURCE)
@click.option(
    "--model",
    type=PATH,
    help="Run directory of a network.  [default: EfficientNet-Lite0 with its ImageNet classes, which becomes part "
    "of the index]",
)
@click.option("--out", type=PATH, help="Directory of the index: new, or unfinished.")
@click.option(
    "--to", "collection", metavar="COLLECTION", help="Milvus collection, in place of --out: new, or filled so."
)
@click.option("--uri", help="Milvus server (http://host:port) or file (name.db) of --to.  [default: MILVUS_URI]")
@click.option("--milvus-token", envvar="MILVUS_TOKEN", help="Token for the Milvus server. Safer: set MILVUS_TOKEN.")
@click.option("--part", type=PartType(), help="With --to, encode this part of the images only, such as 3/8.")
@click.option("--exclude-training", is_flag=True, help="Leave out the images that the network was trained on.")
@protocol_option
@click.option("--seed", default=0, show_default=True, help="Seed of the random choice by --protocol.")
@click.option(
    "--attribute", "attributes", type=AttributeOption(typed=True), multiple=True, callback=attributes_named,
    metavar="NAME=TYPE",
    help="An attribute of the images, such as price=float, from the column of this name if IMAGES is a list. "
    "Repeatable.",
)  # fmt: skip
@device_option
@json_option
def index(
    images: str, model: Path | None, out: Path | None, collection: str | None, uri: str | None,
    milvus_token: str | None, part: tuple[int, int] | None, exclude_training: bool, protocol: ProtocolName | None,
    seed: int, attributes: dict[str, AttributeType], device: str, as_json: bool,
) -> None:  # fmt: skip
    """Encode all IMAGES of a folder, archive or list into a new index.

    Without --model, no training and no labels are needed: the network comes with the extra `pretrained`, and its codes
    are fitted to the images. `semcut adopt` makes a model directory of any other network that exists.
    If the command is interrupted, the same command goes on where it stopped.
    IMAGES may also be Parquet files with images, or shards of WebDataset: a file, a folder of them, or a pattern in
    quotes; and each of these may have an address such as s3://photos. The images may be in subfolders at any depth; a
    class is a folder directly in IMAGES, as for `semcut train`. Files that cannot be read as images, and hidden ones,
    are skipped and listed. --exclude-training recognises an image by its content. Images of other sources than lists
    have no values of attributes, until `semcut add` or `semcut sync` gives them some. If a list has a column id, its
    texts become the ids of the index.

    With --to, the records go to a Milvus collection, which keeps which network made them, so `semcut search` and
    `semcut explore` need the collection only. Several machines can encode one part each at the same time.
    """
    _check_target(out, collection, uri, part)
    if collection is not None and (model is None or exclude_training or attributes):
        raise click.UsageError("--to needs --model, and cannot be combined with --exclude-training or --attribute yet")
    from semcut.connector.data import sources
    from semcut.connector.data.image_folders import warn_of_folders_in_two_classes
    from semcut.connector.data.listed_attributes import require_columns
    from semcut.connector.data.protocols import protocol_split

    listed: Listed | None = None
    keys: dict[str, str] | None = None
    if protocol is None:
        found = sources.list_images(images, attributes, ids=True)
        if found.ids is not None:
            keys = dict(zip(found.files, found.ids, strict=True))
        if found.attributes is not None:
            require_columns(images, found.attributes, attributes)
            listed = (found.files, found.attributes)
        warn_of_folders_in_two_classes(found, stacklevel=1)
        files, skipped = found.files, found.skipped
        roots: tuple[str, ...] = found.roots
    else:
        if exclude_training:
            raise click.UsageError("--protocol determines which images are indexed: leave out --exclude-training")
        database = protocol_split(protocol, images, seed).database
        files, roots, skipped = list(database.files), database.roots, list(database.skipped)
    left_out: list[str] | None = None
    if out is None:
        assert collection is not None
        assert model is not None
        if keys is not None:
            raise DataError(f"{images} has a column id, and --to takes no ids: leave the column out, or use --out")
        result, records = index_collection(
            files, model, uri, collection, roots=roots, skipped=skipped, device=device, token=milvus_token, part=part,
            quiet=as_json,
        )  # fmt: skip
        left = [*result.skipped, *skipped]
        if as_json:
            print_json(
                {"collection": collection, "added": result.added, "known": result.known, "records": records,
                 "skipped": [list(pair) for pair in left]}
            )  # fmt: skip
        else:
            print_line(
                f"collection {collection}: {result.added:,} records added, {result.known:,} known already, "
                f"{len(left):,} files skipped; {records:,} records"
            )
        return
    if exclude_training:
        if model is None:
            raise click.UsageError("--exclude-training needs --model, because only that was trained on images")
        files, left_out = _without_training_images(files, model)
    result = index_with_progress(
        files, model, out, device, roots=roots, skipped=skipped, left_out=left_out, types=attributes, listed=listed,
        keys=keys,
    )  # fmt: skip
    if as_json:
        print_json({"index": str(out), "added": result.added, "skipped": [list(pair) for pair in result.skipped]})
    else:
        print_line(f"{out}: {result.added:,} records, {len(result.skipped)} files skipped")


def _check_target(out: Path | None, collection: str | None, uri: str | None, part: tuple[int, int] | None) -> None:
    """Raise an error unless the options name one target."""
    if (out is None) == (collection is None):
        raise click.UsageError("give either --out DIRECTORY or --to COLLECTION")
    if out is not None and part is not None:
        raise click.UsageError(
            "--part is for --to: a directory has one writer at a time, so parts could not be encoded at once"
        )
    if out is not None and uri is not None:
        raise click.UsageError("--uri is for --to: name the COLLECTION with it, or leave --uri out")


def index_with_progress(
    files: Sequence[str],
    model: Path | None,
    out: Path,
    device: str = "cpu",
    *,
    roots: Sequence[str] = (),
    skipped: Sequence[Skipped] = (),
    left_out: Sequence[str] | None = None,
    types: Mapping[str, AttributeType] | None = None,
    listed: Listed | None = None,
    keys: Mapping[str, str] | None = None,
) -> Indexed:
    """Encode image files into a new or unfinished index; show a progress bar, and print what was skipped.

    Args:
        files: paths of the files.
        model: run directory of the network; None for one that comes with semcut, see `adoption.pretrained_network`.
        out: directory of the index: new, empty, or left unfinished by the same call.
        device: device that runs the network.
        roots: folders whose folders are the classes of the images.
        skipped: what was left out when the files were listed; it is printed and returned with what cannot be read.
        left_out: training images, which `semcut sync` does not add either, nor any other; None for all images.
        types: the attributes of the index.
        listed: files, and the values of their attributes; None if there are none.
        keys: the id of each file, for an index whose ids are strings; None for integers.

    Raises:
        DataError: there are no files, or none of them can be read; then there is no index that was not there before.
        CheckpointError, IndexExistsError: as `Connector.create` raises them.
    """
    from semcut.connector.models.checkpoint import delete_network
    from semcut.connector.retrieval.adding_files import add_paths
    from semcut.connector.retrieval.file_records import note_left_out
    from semcut.connector.retrieval.given_attributes import GivenAttributes
    from semcut.connector.retrieval.given_keys import keys_by_uri
    from semcut.connector.retrieval.model_link import LINK, change_link, read_link
    from semcut.connector.retrieval.trained_records import TRAINED
    from semcut.indexes.storage.directory import delete_index
    from semcut.indexes.unfinished import is_marked, unfinished_works

    if not files:
        raise DataError("there are no images to index")
    keep_freed_memory()
    existed = out.is_dir()
    chosen = {"attributes": dict(types or {}), "string_ids": keys is not None}
    unfinished = _unfinished(out, model, device, roots, chosen)
    made = unfinished or _new_index(files, model, out, device, roots, chosen)
    values = {} if listed is None else _values_of(files, *listed)
    with made as connector, progress_bar("Indexing") as progress:
        if left_out is not None:  # first: an interrupted command must have noted them, too
            connector.files.begin()
            change_link(out, exclude_training=True)
            note_left_out(connector.files, left_out, TRAINED)
        own, uris = None if keys is None else [keys[file] for file in files], list(map(connector.files.uri_of, files))
        given = GivenAttributes()
        given.put(connector.index.config.attributes, uris, values)
        result = add_paths(
            connector.files, out, files, lambda: connector.encoder, progress, resume=unfinished is not None,
            given=given, keys=keys_by_uri(connector.index, uris, own), finish=lambda: _choose_defaults(connector, out),
        )  # fmt: skip
        records = len(connector.index)
    if is_marked(out) and (link := read_link(out)) is not None:
        print_message(f"{out} is unfinished: {_other_work(out, link.root, unfinished_works(out)[0])}")
    result = replace(result, skipped=[*result.skipped, *skipped])
    print_skipped(result.skipped, at_most=SKIPPED_SHOWN)
    if not records and unfinished is not None:
        raise DataError(f"none of the {len(result.skipped):,} files can be read, so {out} still has no records")
    if not records:
        if model is None:
            delete_network(out)
        (out / LINK).unlink(missing_ok=True)
        delete_index(out)
        if existed:
            out.mkdir(exist_ok=True)
        raise DataError(f"none of the {len(result.skipped):,} files can be read, so there is no index {out}")
    return result


def _choose_defaults(connector: Connector, out: Path) -> None:
    """Choose the defaults of searches, if the network was adopted, and say what was chosen."""
    from semcut.connector.calibration.first_defaults import choose_first_defaults

    found = choose_first_defaults(connector, out)
    if found is not None:
        cutoff = "no cutoff" if found.cutoff is None else f"cutoff {found.cutoff:g}"
        shortlist = "every relevant record" if found.shortlist is None else f"{found.shortlist:,} records"
        print_message(
            f"searches: {cutoff}, by {found.ranking}, of {shortlist}; `semcut calibrate` chooses with more images"
        )


def _values_of(files: Sequence[str], listed: Sequence[str], columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the values of attributes for some of the files of a list."""
    rows = {file: row for row, file in enumerate(listed)}
    places = [rows[file] for file in files]
    return {name: [values[place] for place in places] for name, values in columns.items()}


def _new_index(
    files: Sequence[str], model: Path | None, out: Path, device: str, roots: Sequence[str], chosen: Mapping[str, Any]
) -> Connector:
    """Create an index; without a model, adopt the network that comes with semcut, which the index then keeps."""
    from semcut.connector.retrieval.image_index import Connector

    if model is not None:
        return Connector.create(out, model, device=device, roots=roots, engine="faiss", **chosen)
    from semcut.connector.adoption.pretrained_network import pretrained_network
    from semcut.connector.retrieval.empty_index import require_new_index

    require_new_index(out)  # before the network sees the images
    with progress_bar("Fitting codes") as progress, pretrained_network(files, device, progress) as network:
        return Connector.create(out, network, device=device, roots=roots, keep_network=True, engine="faiss", **chosen)


def _unfinished(
    out: Path, model: Path | None, device: str, roots: Sequence[str], chosen: Mapping[str, Any]
) -> Connector | None:
    """Open an index that was interrupted while the same command made it; None if there is no such index."""
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.retrieval.model_link import read_description, read_link
    from semcut.indexes.storage.directory import CATALOGUE
    from semcut.indexes.unfinished import is_marked, unfinished_works

    link = read_link(out) if (out / CATALOGUE).is_file() else None
    network = read_description(out if model is None else model)
    if link is None or network is None or (link.sha256, link.roots) != (network.sha256, tuple(roots)):
        return None
    marked, (works, making) = is_marked(out), unfinished_works(out)
    if marked and not making:
        raise IndexExistsError(f"{out} has been made, and {_other_work(out, link.root, works)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SemcutWarning)  # that it is unfinished, or empty, which is said below
        connector = Connector.open(out, model, device=device, engine="faiss")
    if marked or not len(connector.index):
        config = connector.index.config
        if (own := config.attributes) != chosen["attributes"]:
            connector.close()
            described = ", ".join(f"{name}={kind}" for name, kind in own.items()) or "none"
            raise IndexExistsError(f"{out} is unfinished, and has other attributes: {described}; give the same ones")
        if config.string_ids != chosen["string_ids"]:
            connector.close()
            own_ids = "strings, of a list with a column id" if config.string_ids else "integers"
            raise IndexExistsError(f"{out} is unfinished, and its ids are {own_ids}; give the same images")
        print_message(f"{out} is unfinished, with {len(connector.index):,} records: going on with the other files")
        return connector
    connector.close()
    return None


def _other_work(out: Path, root: str | None, works: Sequence[str]) -> str:
    """Say which command has to be called again, after `semcut index` has done its part."""
    from semcut.connector.retrieval.folder_sync import sync_id

    synced = root is not None and tuple(works) == (sync_id(root, root),)
    command = f"`semcut sync {out}`" if synced else "another command, such as `semcut add` or `semcut sync`,"
    return f"{command} was interrupted there, or is still running: call that again"


def _without_training_images(files: Sequence[str], model: Path) -> tuple[list[str], list[str]]:
    """Return the files whose content is not that of a training image, and the others; print how many these are."""
    from semcut.connector.data.image_contents import digests_of
    from semcut.connector.models.checkpoint import Checkpoint

    trained = Checkpoint.load(model).training_digests().all
    known = [digest in trained for digest in digests_of(files)]
    left_out = [file for file, one in zip(files, known, strict=True) if one]
    print_message(f"{len(left_out):,} of {len(files):,} files left out, because the network was trained on them")
    return [file for file, one in zip(files, known, strict=True) if not one], left_out
