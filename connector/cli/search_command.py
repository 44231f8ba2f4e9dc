"""`semcut search`: finds the records of an index that are most similar to images, and draws them."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import semcut.connector.models  # noqa: F401  # reports which packages are missing
from semcut.connector.cli.options import PATH, PICTURE, SOURCE, json_option, search_options, where_option
from semcut.connector.cli.terminal import (
    OUT,
    new_table,
    print_json,
    print_line,
    print_message,
    print_skipped,
    print_warning,
)
from semcut.indexes.errors import DataError
from semcut.indexes.storage.atomic_write import replacing_named

if TYPE_CHECKING:
    from semcut.connector.retrieval.hits import Hit
    from semcut.indexes.scanners.engine_names import EngineName

_DEFAULT_K = 5  # results per query, as many as a contact sheet shows in a row


@click.command()
@click.argument("index", type=SOURCE)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--uri", help="Milvus server (http://host:port) or file (name.db) where INDEX is a collection.")
@click.option("--milvus-token", envvar="MILVUS_TOKEN", help="Token for the Milvus server. Safer: set MILVUS_TOKEN.")
@search_options(k=_DEFAULT_K)
@click.option(
    "--fill/--no-fill",
    default=True,
    show_default=True,
    help="Fill places that relevant records leave with the best of the others.",
)
@click.option("--exclude-self", is_flag=True, help="Leave the records of the images themselves out of the results.")
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="How much results shall differ from one another, below 1.",
)
@click.option("--together", is_flag=True, help="Make one query of all images: records that are like all of them.")
@click.option("--less-like", type=PATH, multiple=True, help="Image that results shall be less like. Repeatable.")
@where_option
@click.option("--picture", type=PICTURE, help="Write a contact sheet of the results to this PNG file.")
@json_option
def search(
    index: str, images: tuple[Path, ...], uri: str | None, milvus_token: str | None, model: Path | None, device: str,
    picture: Path | None, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Find the records of INDEX that are most similar to each image.

    An image that cannot be read is named, the others are answered, and the exit status is 1. An image of --less-like
    that cannot be read is an error. With --uri, INDEX is a collection that `semcut index --to` has made.
    """
    from semcut.connector.data.decoding_pool import POOL

    POOL.prepare()  # its process starts while torch is loaded
    from semcut.connector.retrieval.collection_link import open_collection
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE

    # For the few queries of one command, loading the compiled engine takes longer than the time that it saves.
    engine: EngineName = "auto" if os.environ.get(ENGINE_VARIABLE) else "faiss"
    opened = (
        Connector.open(index, model, device=device, engine=engine)
        if uri is None
        else open_collection(uri, index, model, token=milvus_token, device=device)
    )
    with opened as connector:
        skipped: list[tuple[str, str]] = []
        found = connector.search(images, skipped=skipped, **settings)
        roots, records = connector.roots, len(connector.index)
    print_skipped(skipped)
    failed = dict(skipped)
    if settings["together"]:
        names = [str(image) for image in images if str(image) not in failed]
        answered = [(names[0], found[0])] if names else []
    else:
        names = list(map(str, images))
        answered = [(name, hits) for name, hits in zip(names, found, strict=True) if name not in failed]
    if picture is not None and answered:
        write_contact_sheet([image for image, _ in answered], [hits for _, hits in answered], picture, roots)
    if as_json:
        print_json(_content(list(map(str, images)), found, failed, together=settings["together"]))
    else:
        for name, hits in answered if records else ():  # opening it has said that it has none
            _show_hits(" + ".join(names) if settings["together"] else name, hits)
    if failed:
        sys.exit(1)


def _content(
    images: list[str], found: Sequence[Sequence[Hit]], failed: dict[str, str], *, together: bool
) -> list[dict[str, Any]]:
    """Return the JSON of the results of each image, or of all images together."""
    if together:
        hits = [_as_json(hit) for hit in found[0]]
        return [{"images": images, "hits": hits} | ({"errors": failed} if failed else {})]
    return [
        {"image": image, "hits": [_as_json(hit) for hit in hits]}
        | ({"error": failed[image]} if image in failed else {})
        for image, hits in zip(images, found, strict=True)
    ]


def _as_json(hit: Hit) -> dict[str, Any]:
    from semcut.indexes.attributes.attribute_types import json_value

    values = asdict(hit)
    key = {} if hit.key is None else {"key": values["key"]}
    del values["key"]
    attributes = {name: json_value(value) for name, value in values.pop("attributes").items()}
    return values | key | ({"attributes": attributes} if attributes else {})


def _show_hits(image: str, hits: Sequence[Hit]) -> None:
    """Print the results of one query as a table."""
    if not hits:
        print_line(f"{image}: no record has a relevance above the cutoff")
        return
    filled = sum(hit.filled for hit in hits)
    table = new_table("id", "distance", "relevance", "score", "hamming", "uri", title=image, text=(5,))
    for place, hit in enumerate(hits):
        if filled and place == len(hits) - filled:
            table.add_section()
        numbers = (f"{hit.distance:.4f}", f"{hit.relevance:.3f}", f"{hit.score:.3f}", str(hit.hamming))
        table.add_row(hit.key or str(hit.id), *numbers, hit.uri or "")
    if filled:
        table.caption = (
            "no record is relevant: these are the best of all"
            if filled == len(hits)
            else ("below the line: not relevant, the best of the others")
        )
    OUT.print(table)


def write_contact_sheet(
    images: Sequence[str],
    found: Sequence[Sequence[Hit]],
    target: Path,
    roots: tuple[str, ...] = (),
    *,
    writing: Callable[[Path], AbstractContextManager[Path]] = replacing_named,
) -> None:
    """Draw each query with its first results in a row of a PNG file.

    Args:
        images: paths of the queries.
        found: the results of each query.
        target: the file.
        roots: folders of class folders.
        writing: how the file is replaced; `replacing` does not follow a link.

    Raises:
        DataError: the file cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    from semcut.connector.data.image_folders import classes_of
    from semcut.connector.retrieval.contact_sheet import Tile, contact_sheet

    drawn = [list(hits[:_DEFAULT_K]) for hits in found]
    uris = [[image, *(hit.uri for hit in hits)] for image, hits in zip(images, drawn, strict=True)]
    classes = classes_of(itertools.chain.from_iterable(uris), roots)
    rows = []
    for image, hits in zip(images, drawn, strict=True):
        label = next(classes)
        query = Tile(image, label, ("query", label or ""))
        results = [
            Tile(
                hit.uri or "",
                name,
                (f"d {hit.distance:.3f}", f"R {hit.relevance:.3f}{', filled' * hit.filled}"),
            )
            for hit, name in zip(hits, itertools.islice(classes, len(hits)), strict=True)
        ]
        rows.append((query, results))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        missing: list[str] = []
        sheet = contact_sheet(rows, missing)
        with writing(target) as scratch:
            mark = PngInfo()
            mark.add_text("Software", "semcut")  # by which `PICTURE` knows that it may be replaced
            sheet.save(scratch, "PNG", optimize=True, pnginfo=mark)
    except OSError as error:
        raise DataError(f"cannot write the picture {target}: {error.strerror or error}") from None
    print_message(f"picture: {target}")
    if missing:
        print_warning(
            f"{len(missing)} of the {sum(map(len, uris))} images on it could not be opened, as if moved: {missing[0]}"
        )
