"""`semcut backup`: copies a stored index, also while other processes search and change it.

The target must be new or empty, so a backup never replaces anything. A damaged index is not copied.
"""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH
from semcut.connector.cli.terminal import print_line, progress_bar


@click.command()
@click.argument("index", type=PATH)
@click.argument("target", type=PATH)
def backup(index: Path, target: Path) -> None:
    """Copy a stored INDEX to a new directory TARGET.

    TARGET must be new or empty. Other processes may search and change the index during the copy; the copy has the
    state of the index when this command opened it. Everything is compared with its checksums while it is copied.
    """
    from semcut.indexes import FaissIndex

    with FaissIndex.open(index) as opened:
        with progress_bar("Copying") as progress:
            opened.backup(target, progress)
        records = len(opened)
    print_line(f"{records:,} records copied to {target}.")
