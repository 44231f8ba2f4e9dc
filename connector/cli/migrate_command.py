"""`semcut migrate`: copies a stored index to a Milvus collection, or back; see `semcut.indexes.migration`."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcut.connector.cli.options import PATH, REPORT, json_option
from semcut.connector.cli.terminal import fail, print_json, print_warning, progress_bar, show_facts
from semcut.indexes.errors import (
    IndexExistsError,
    InvalidParameterError,
    NotAnIndexError,
    SemcutWarning,
    ServerError,
    StorageError,
)
from semcut.indexes.milvus import LARGEST_BATCH
from semcut.indexes.storage.atomic_write import replacing_named

if TYPE_CHECKING:
    from semcut.indexes import FaissIndex, IndexConfig
    from semcut.indexes.milvus import MilvusIndex

DIFFERENT, CHANGED, UNAVAILABLE = 3, 4, 5
"""Exit statuses in addition to 0 (done), 1 (an error) and 2 (wrong use); the help text explains them."""


@click.command()
@click.argument("index", type=PATH)
@click.argument("collection", default="semcut")
@click.option(
    "--uri", envvar="MILVUS_URI", help="Milvus server (http://host:port) or file (name.db). Or set MILVUS_URI."
)
@click.option("--token", envvar="MILVUS_TOKEN", help="user:password or an API key. Safer: set MILVUS_TOKEN.")
@click.option("--database", help="Database on the server.")
@click.option("--timeout", default=60.0, show_default=True, help="Longest time for one request, in seconds.")
@click.option("--reverse", is_flag=True, help="Copy the COLLECTION to a new directory INDEX.")
@click.option("--resume", is_flag=True, help="Continue a copy that was interrupted.")
@click.option("--verify", is_flag=True, help="After the copy, compare it with the source: counts, contents, searches.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--partition-key", is_flag=True, help="Let the server partition the records by dominant class.")
@click.option(
    "--batch-size", type=click.IntRange(1, LARGEST_BATCH), default=5_000, show_default=True, help="Records per batch."
)
@click.option("--journal", type=PATH, help="File that records what was copied.  [default: INDEX.COLLECTION.journal]")
@click.option("--report", "report_file", type=REPORT, help="Write the report to this file, as JSON.")
@json_option
def migrate(
    index: Path, collection: str, reverse: bool, resume: bool, verify: bool, dry_run: bool, partition_key: bool,
    batch_size: int, journal: Path | None, report_file: Path | None, as_json: bool, **connection: Any,
) -> None:  # fmt: skip
    """Copy a stored INDEX to a Milvus server, or back.

    The records are copied to the COLLECTION on the server [default: semcut]. With --reverse, the collection is copied
    to a new INDEX. If the copy is interrupted, or the server stops, --resume continues it. --resume --verify compares a
    copy that is already complete.

    Exit status: 0 done; 1 an error; 2 wrong use; 3 the copy differs from the source (--verify); 4 the source was
    changed during the copy; 5 the server does not answer: continue with --resume; 130 interrupted from the keyboard:
    continue with --resume.
    """
    from semcut.indexes.migration.copy import Migration
    from semcut.indexes.migration.journal import Journal, SourceChangedError

    uri = connection.pop("uri")
    index = index.absolute() if index.name else index.resolve()
    log_file = journal or index.with_name(f"{index.name}.{collection}.journal")
    target_settings = {"collection": collection, **connection}
    names = (f"{index.name}", f"collection {collection}")
    if report_file is not None and not report_file.absolute().parent.is_dir():
        raise StorageError(f"cannot write the report {report_file}: {report_file.parent} is not a directory")
    try:
        with ExitStack() as stack:
            if dry_run:
                plan = _plan(index, uri, target_settings, reverse, partition_key, batch_size)
                _show(plan, as_json, report_file)
                return
            log = Journal(log_file)
            if log.header is not None and not resume:
                raise IndexExistsError(
                    f"a copy was started before, {log.copied} records are copied: continue with --resume, or delete "
                    f"{log_file} and the target to start again"
                )
            faiss, milvus = _open_both(stack, index, uri, target_settings, reverse, resume, partition_key)
            source, target = (milvus, faiss) if reverse else (faiss, milvus)
            migration = Migration(source, target, log, names[::-1] if reverse else names, batch_size)
            with progress_bar("Copying", quiet=as_json) as progress, _marked(index, faiss, milvus, reverse):
                report = migration.copy(progress)
            if verify:
                with progress_bar("Verifying", quiet=as_json) as progress:
                    report = migration.verify(progress=progress)
        _show(report.as_dict(), as_json, report_file)
        for difference in report.differences:
            print_warning(difference, label="differs", colour="bold red")
        if report.differences:
            sys.exit(DIFFERENT)
    except SourceChangedError as error:
        fail(str(error), CHANGED)
    except ServerError as error:
        fail(f"{error}. Then continue with --resume" if not dry_run else str(error), UNAVAILABLE)
    except KeyboardInterrupt:
        fail("interrupted: continue with --resume", 130)


def _marked(
    path: Path, faiss: FaissIndex, milvus: MilvusIndex, reverse: bool
) -> contextlib.AbstractContextManager[None]:
    """Record where the new index is that records are missing, until the copy is complete."""
    from semcut.indexes.unfinished import adding

    return adding(path, len(milvus), 0, resumes=True) if reverse else milvus.filling(len(faiss))


def _open_both(
    stack: ExitStack,
    index: Path,
    uri: str | None,
    settings: dict[str, Any],
    reverse: bool,
    resume: bool,
    partition_key: bool,
) -> tuple[FaissIndex, MilvusIndex]:
    """Open source and target of a copy; create the target if it does not exist. The stack closes both."""
    from semcut.indexes import FaissIndex
    from semcut.indexes.milvus import MilvusIndex

    if not reverse:
        faiss = stack.enter_context(FaissIndex.open(index))
        try:
            milvus = MilvusIndex.create(uri, faiss.config, partition_key=partition_key, **settings)
        except IndexExistsError as error:
            if not resume:
                raise IndexExistsError(f"{error}; if a copy was interrupted, continue with --resume") from None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SemcutWarning)  # that it is unfinished: this copy adds what is missing
                milvus = MilvusIndex.open(uri, **settings)
        return faiss, stack.enter_context(milvus)
    milvus = stack.enter_context(MilvusIndex.open(uri, strong=True, **settings))
    if resume and index.exists() and any(index.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SemcutWarning)  # as above
            faiss = FaissIndex.open(index)
    else:
        faiss = FaissIndex.create(index, milvus.config)
    return stack.enter_context(faiss), milvus


def _plan(
    index: Path, uri: str | None, settings: dict[str, Any], reverse: bool, partition_key: bool, batch_size: int
) -> dict[str, Any]:
    """Describe what a copy would do, without changing anything."""
    from semcut.indexes import FaissIndex
    from semcut.indexes.migration.copy import COPY_BYTES_PER_SECOND, record_bytes
    from semcut.indexes.milvus import MilvusIndex

    obstacle: str | None = None
    if reverse:
        with MilvusIndex.open(uri, **settings) as milvus:
            config, records = milvus.config, len(milvus)
        created: dict[str, Any] = {"directory": str(index)}
        if index.exists() and (not index.is_dir() or any(index.iterdir())):
            obstacle = f"{index} holds something already"
    else:
        with FaissIndex.open(index) as faiss:
            config, records = faiss.config, len(faiss)
        created, obstacle = _plan_collection(uri, settings, config, partition_key)
    size = records * record_bytes(config)
    return {
        "records": records,
        "classes": config.classes,
        "bits": config.bits,
        "dim": config.dim,
        "bytes": size,
        "batches": -(-records // config.batch_records(batch_size)),
        "would create": created,
        "in the way": obstacle,
        "seconds, roughly": round(size / COPY_BYTES_PER_SECOND, 1),
    }


def _plan_collection(
    uri: str | None, settings: dict[str, Any], config: IndexConfig, partition_key: bool
) -> tuple[dict[str, Any], str | None]:
    """Describe the collection that a copy would create, and what prevents the copy, if anything."""
    from semcut.indexes.migration.comparison import check_same_config
    from semcut.indexes.milvus import MilvusIndex
    from semcut.indexes.milvus.address import require_embedded_file
    from semcut.indexes.milvus.connection import ServerConnection
    from semcut.indexes.milvus.lifecycle import planned_collections

    created: dict[str, Any] = {}
    name = settings["collection"]
    try:
        require_embedded_file(uri)
        connection = {key: value for key, value in settings.items() if key != "collection"}
        with contextlib.closing(ServerConnection(uri, **connection)) as server:
            created = planned_collections(server, name, config, partition_key)
        with MilvusIndex.open(uri, **settings) as milvus:
            records = len(milvus)
            try:
                check_same_config(config, milvus.config, f"collection {name}")
            except InvalidParameterError as error:
                return created, str(error)
        return created, f"collection {name} exists, with {records} records: --resume is needed"
    except NotAnIndexError:
        return created or planned_collections(None, name, config, partition_key), None


def _show(content: dict[str, Any], as_json: bool, file: Path | None) -> None:
    """Write a plan or a report to a file, if one is given, and print it."""
    if file is not None:
        try:
            with replacing_named(file) as scratch:
                scratch.write_text(json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise StorageError(f"cannot write the report {file}: {error.strerror or error}") from None
    if as_json:
        print_json(content)
    else:
        show_facts({name.replace("_", " "): value for name, value in content.items() if value not in (None, [])})
