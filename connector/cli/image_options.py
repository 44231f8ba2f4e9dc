"""Options of the commands that work on labelled images, and the images that these options choose.

Commands that look after a stored index do not import this module: it names protocols of `semcut.connector.data`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import click

from semcut.connector.data import ProtocolName

if TYPE_CHECKING:
    from semcut.connector.data.sources import ImageSet

protocol_option = click.option(
    "--protocol",
    type=click.Choice(get_args(ProtocolName)),
    help="Use the images that this protocol selects; the data has train and test, or train and val.",
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), help="Use only this many images, balanced over the classes."
)


def select_images(
    source: str, limit: int | None, protocol: ProtocolName | None, part: Literal["training", "queries"], seed: int
) -> ImageSet:
    """Load the labelled images that a command works on.

    Args:
        source: folder, archive or name of a data set.
        limit: number of images, balanced over the classes; None uses all.
        protocol: the protocol that selects them, instead of a limit.
        part: which part of the protocol.
        seed: of the random choice that a limit or a protocol makes.

    Raises:
        click.UsageError: a protocol and a limit are given.
        DataError: the source cannot be used.
    """
    from semcut.connector.data import sources
    from semcut.connector.data.protocols import protocol_split

    if protocol is not None:
        if limit is not None:
            raise click.UsageError("--protocol says how many images there are: leave out --limit")
        images: ImageSet = getattr(protocol_split(protocol, source, seed), part)
        return images
    found = sources.load(source)
    return found if limit is None else found.sample(limit, seed)
