"""`semcut backup`: copies a stored index, which may be searched and changed meanwhile.

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

    Another process may change the index meanwhile: the copy holds its state at the moment when the command opened it.
    All columns are compared with their checksums while they are copied.
    """
    from semcut.indexes import FaissIndex

    with FaissIndex.open(index) as opened:
        with progress_bar("Copying") as progress:
            opened.backup(target, progress)
        records = len(opened)
    print_line(f"{records:,} records copied to {target}.")
