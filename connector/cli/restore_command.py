"""`semcut restore`: replaces a stored index by a backup in one step, also while other processes search it.

Copying the files of a backup over those of an index is not safe, see `indexes.storage.restore`.
"""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH
from semcut.connector.cli.terminal import print_line, print_warning, progress_bar


@click.command()
@click.argument("backup", type=PATH)
@click.argument("index", type=PATH)
def restore(backup: Path, index: Path) -> None:
    """Replace a stored INDEX by a copy of BACKUP, in one step.

    Never copy the files of a backup over those of an index: a process that has the index open could be killed. This
    command checks and copies the backup first; then it exchanges the directories. Processes that have the index open
    read the previous state until they open the index again. An index that a process is changing is not replaced.
    """
    from semcut.indexes.storage.restore import restore as restore_index
    from semcut.indexes.unfinished import unfinished

    with progress_bar("Copying") as progress:
        records = restore_index(backup, index, progress)
    missing = unfinished(index, records)
    if missing is not None:
        print_warning(missing)
    print_line(f"{records:,} records restored to {index}.")
