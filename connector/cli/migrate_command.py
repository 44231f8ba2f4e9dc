"""`semcut migrate`: a stored index to Milvus and back, see `migration`."""

from __future__ import annotations

import contextlib
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from semcut.connector.cli.app import ERR, OUT, PATH, bar, fail, print_json
from semcut.indexes.errors import IndexExistsError, InvalidParameterError, NotAnIndexError, ServerError
from semcut.indexes.milvus import LARGEST_BATCH

if TYPE_CHECKING:
    from semcut.indexes import FaissIndex
    from semcut.indexes.milvus import MilvusIndex

DIFFERENT, CHANGED, UNAVAILABLE = 3, 4, 5
"""Exit statuses, beside 0 (done), 1 (an error) and 2 (misuse): see the help text."""


@click.command()
@click.argument("index", type=PATH)
@click.argument("collection", default="semcut")
@click.option("--uri", envvar="MILVUS_URI", help="The server, http://host:port, or a file name.db; or MILVUS_URI.")
@click.option("--token", envvar="MILVUS_TOKEN", help="user:password or a key; better in MILVUS_TOKEN than here.")
@click.option("--database", help="The database on the server.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds that one request may take.")
@click.option("--reverse", is_flag=True, help="From the COLLECTION to a new directory INDEX.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted copy stopped.")
@click.option("--verify", is_flag=True, help="Compare the copy afterwards: counts, contents, searches.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--partition-key", is_flag=True, help="Have the server partition by dominant class.")
@click.option("--batch-size", type=click.IntRange(1, LARGEST_BATCH), default=5_000, show_default=True, help="Records.")
@click.option("--journal", type=PATH, help="Where to note what has been copied. [default: INDEX.COLLECTION.journal]")
@click.option("--report", "report_file", type=PATH, help="Write a report there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def migrate(
    index: Path, collection: str, reverse: bool, resume: bool, verify: bool, dry_run: bool, partition_key: bool,
    batch_size: int, journal: Path | None, report_file: Path | None, as_json: bool, **connection: Any,
) -> None:  # fmt: skip
    """Copy a stored INDEX to a Milvus server, or back.

    There it is the COLLECTION; with --reverse a new INDEX is made of that. Interrupted at any moment, also by a server
    that goes down, the copy goes on with --resume. --verify can be given with it later, too.

    Exit status: 0 done; 1 an error; 2 misuse; 3 the copy differs from the source (--verify); 4 the source was changed
    meanwhile; 5 the server does not answer: go on with --resume; 130 interrupted by hand: likewise.
    """
    from semcut.indexes.migration.copy import Journal, Migration, SourceChangedError

    uri = connection.pop("uri")
    index = index.absolute() if index.name else index.resolve()
    noted = journal or index.with_name(f"{index.name}.{collection}.journal")
    reached = {"collection": collection, **connection}
    names = (f"{index.name}", f"collection {collection}")
    try:
        with ExitStack() as stack:
            if dry_run:
                plan = _plan(index, uri, reached, reverse, partition_key, batch_size)
                _show(plan, as_json, report_file)
                return
            log = Journal(noted)
            if log.header is not None and not resume:
                raise IndexExistsError(
                    f"a copy was begun, {log.copied} records are done: go on with --resume, or delete {noted} and the "
                    "target to start anew"
                )
            faiss, milvus = _open(stack, index, uri, reached, reverse, resume, partition_key)
            source, target = (milvus, faiss) if reverse else (faiss, milvus)
            migration = Migration(source, target, log, names[::-1] if reverse else names, batch_size)
            with bar("Copying", quiet=as_json) as progress:
                report = migration.copy(progress)
            if verify:
                with bar("Verifying", quiet=as_json) as progress:
                    report = migration.verify(progress=progress)
        _show(report.as_dict(), as_json, report_file)
        for difference in report.differences:
            ERR.print(f"[bold red]differs:[/] {difference}", highlight=False, soft_wrap=True)
        if report.differences:
            sys.exit(DIFFERENT)
    except SourceChangedError as error:
        fail(str(error), CHANGED)
    except ServerError as error:
        fail(f"{error}. Then go on with --resume" if not dry_run else str(error), UNAVAILABLE)
    except KeyboardInterrupt:
        fail("interrupted: go on with --resume", 130)


def _open(
    stack: ExitStack, index: Path, uri: str | None, reached: dict[str, Any], reverse: bool, resume: bool, key: bool
) -> tuple[FaissIndex, MilvusIndex]:
    """Both sides, the target made if it is not there."""
    from semcut.indexes import FaissIndex
    from semcut.indexes.milvus import MilvusIndex

    if not reverse:
        faiss = stack.enter_context(FaissIndex.open(index))
        try:
            milvus = MilvusIndex.create(uri, faiss.config, partition_key=key, **reached)
        except IndexExistsError as error:
            if not resume:
                raise IndexExistsError(f"{error}; if a copy was interrupted, go on with --resume") from None
            milvus = MilvusIndex.open(uri, **reached)
        return faiss, stack.enter_context(milvus)
    milvus = stack.enter_context(MilvusIndex.open(uri, strong=True, **reached))
    if resume and index.exists() and any(index.iterdir()):
        faiss = FaissIndex.open(index)
    else:
        faiss = FaissIndex.create(index, milvus.config)
    return stack.enter_context(faiss), milvus


def _plan(
    index: Path, uri: str | None, reached: dict[str, Any], reverse: bool, key: bool, batch_size: int
) -> dict[str, Any]:
    """What would be done; nothing is."""
    from semcut.indexes import FaissIndex
    from semcut.indexes.migration.copy import RECORD_BYTES_A_SECOND, check_shape, record_bytes
    from semcut.indexes.milvus import MilvusIndex
    from semcut.indexes.milvus.address import check_there
    from semcut.indexes.milvus.connection import Server
    from semcut.indexes.milvus.lifecycle import planned

    there, made = None, {}
    if reverse:
        with MilvusIndex.open(uri, **reached) as milvus:
            config, records, made = milvus.config, len(milvus), {"directory": str(index)}
        if index.exists() and (not index.is_dir() or any(index.iterdir())):
            there = f"{index} holds something already"
    else:
        with FaissIndex.open(index) as faiss:
            config, records = faiss.config, len(faiss)
        try:
            check_there(uri)
            with contextlib.closing(Server(uri, **{k: v for k, v in reached.items() if k != "collection"})) as server:
                made = planned(server, reached["collection"], config, key)
            with MilvusIndex.open(uri, **reached) as milvus:
                held = len(milvus)
                try:
                    check_shape(config, milvus.config, f"collection {reached['collection']}")
                    there = f"collection {reached['collection']} is there, with {held} records: --resume is needed"
                except InvalidParameterError as error:
                    there = str(error)
        except NotAnIndexError:
            made = made or planned(None, reached["collection"], config, key)
    size = records * record_bytes(config)
    return {
        "records": records,
        "classes": config.classes,
        "bits": config.bits,
        "dim": config.dim,
        "bytes": size,
        "batches": -(-records // batch_size),
        "would create": made,
        "in the way": there,
        "seconds, roughly": round(size / RECORD_BYTES_A_SECOND, 1),
    }


def _show(content: dict[str, Any], as_json: bool, file: Path | None) -> None:
    if file is not None:
        file.write_text(json.dumps(content, indent=2) + "\n")
    if as_json:
        print_json(content)
        return
    table = Table("", "", show_header=False)
    for name, value in content.items():
        if value in (None, []):
            continue
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {text}" for key, text in value.items())
        shown = f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
        table.add_row(name.replace("_", " "), shown)
    OUT.print(table)
