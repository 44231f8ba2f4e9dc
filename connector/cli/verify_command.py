"""`semcut verify`: reads a whole stored index and lists what is damaged."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcut.connector.cli.options import PATH, json_option
from semcut.connector.cli.terminal import print_json, print_line, progress_bar

if TYPE_CHECKING:
    from semcut.indexes.storage.store import Store
    from semcut.indexes.storage.verify import Damage

_IDS_SHOWN = 20


@click.command()
@click.argument("index", type=PATH)
@json_option
def verify(index: Path, as_json: bool) -> None:
    """Read a whole stored INDEX and list what is damaged.

    Compares all files with their checksums and with each other, and changes nothing. For each damaged part, the ids of
    the affected records are printed; if ids are strings that cannot be read, their numbers. The exit status is 1 if
    anything is damaged, or if the index is unfinished because the command that filled it was interrupted.
    """
    from semcut.indexes.errors import StorageError
    from semcut.indexes.storage.directory import MARK
    from semcut.indexes.storage.store import Store
    from semcut.indexes.storage.verify import Damage, verify_path
    from semcut.indexes.unfinished import unfinished

    with progress_bar("Verifying", quiet=as_json) as progress:
        found = verify_path(index, progress)
    keys: list[list[str] | None] = [None] * len(found)
    with contextlib.suppress(StorageError):  # an index that cannot be opened is damaged, which is listed already
        store = Store.open(index)
        missing = unfinished(index, len(store.snapshot))
        if store.config.string_ids:
            keys = [_keys_of(store, damage) for damage in found]
        store.close()
        if missing is not None:
            found.append(Damage(str(index / MARK), missing))
            keys.append(None)
    if as_json:
        print_json(
            [
                {"where": damage.where, "what": damage.what, "ids": damage.ids.tolist()}
                | ({} if named is None else {"keys": named})
                for damage, named in zip(found, keys, strict=True)
            ]
        )
    elif not found:
        print_line(f"{index} is sound.")
    else:
        for damage, named in zip(found, keys, strict=True):
            print_line(f"{damage.where}: {damage.what}{_affected(named or list(map(str, damage.ids.tolist())))}")
    if found:
        sys.exit(1)


def _keys_of(store: Store, damage: Damage) -> list[str] | None:
    """Read the keys of the records of a damaged part; None if they are damaged, too."""
    import numpy as np

    from semcut.indexes.errors import DamagedIndexError

    columns, live = store.snapshot.columns, store.snapshot.live
    try:
        return columns.keys(live[np.isin(columns.ids[live], damage.ids)])
    except DamagedIndexError:
        return None


def _affected(ids: list[str]) -> str:
    """Format the number of affected records, and the ids of the first 20."""
    if not ids:
        return ""
    named = ", ".join(ids[:_IDS_SHOWN]) + (", ..." if len(ids) > _IDS_SHOWN else "")
    return f"; {len(ids)} records: {named}"
