"""Options that choose images, and the images that they choose.

Commands that maintain a stored index do not import this module, because it imports `semcut.connector.data`.
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
    help="Use the images that this protocol selects. The data must have folders train and test, or train and val.",
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), help="Use only this many images, balanced over the classes."
)


def select_images(
    source: str, limit: int | None, protocol: ProtocolName | None, part: Literal["training", "queries"], seed: int
) -> ImageSet:
    """Load the labelled images that a command works on.

    Args:
        source: the data set, see `sources`.
        limit: largest number of images, balanced over the classes; None uses all.
        protocol: the protocol that selects images, instead of a limit.
        part: the part of the protocol that is used.
        seed: seed of the random choice by a limit or a protocol.

    Raises:
        click.UsageError: a protocol and a limit are given.
        DataError: the source cannot be used.
    """
    from semcut.connector.data import sources
    from semcut.connector.data.protocols import protocol_split

    if protocol is not None:
        if limit is not None:
            raise click.UsageError("--protocol determines the number of images: leave out --limit")
        images: ImageSet = getattr(protocol_split(protocol, source, seed), part)
        return images
    found = sources.load(source)
    return found if limit is None else found.sample(limit, seed)
