"""`semcut compact`: rewrites a stored index without its removed records.

The new files replace the old ones in one step, so an interrupted compaction changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH
from semcut.connector.cli.terminal import print_line, progress_bar


@click.command()
@click.argument("index", type=PATH)
def compact(index: Path) -> None:
    """Release the disk space of removed records in a stored INDEX.

    Compaction also makes searches faster if many records were removed. While the command runs, the index can be
    searched but not changed. The command needs as much free disk space as the remaining records take.
    """
    from semcut.indexes import FaissIndex

    with FaissIndex.open(index) as opened:
        before = opened.stats()
        with progress_bar("Compacting") as progress:
            opened.compact(progress)
        after = opened.stats()
    saved = sum(before.column_bytes.values()) - sum(after.column_bytes.values())
    print_line(f"{after.records:,} records kept, {before.removed:,} removed records deleted, {saved:,} bytes released.")
