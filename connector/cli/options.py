"""Options that several commands share, each with one name, one default and one help text.

This module must load without torch and numpy, because `semcut --help` and the commands that maintain a stored index
import it. Options that choose images are in `image_options`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

PATH = click.Path(path_type=Path)

_F = TypeVar("_F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Device that runs the network: cpu, cuda, cuda:0."
)
moved_model_option = click.option(
    "--model", type=PATH, help="Run directory of the network, if it was moved after the index was made."
)


class ShortlistType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --shortlist: a number of records, or the word "all"."""

    name = "n|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, or None for all."""
        if value is None or value == "all":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor all", param, ctx)


def search_options(k: int) -> Callable[[_F], _F]:
    """Create a decorator that adds the options of a search; `k` is the default number of results."""
    options = (
        click.option("-k", default=k, show_default=True, help="Number of records to find for each image."),
        click.option("--cutoff", "-t", default=DEFAULT_CUTOFF, show_default=True,
                     help="Disregard records whose relevance is not above this value."),
        click.option("--shortlist", type=ShortlistType(), metavar="N|all", default=DEFAULT_SHORTLIST, show_default=True,
                     help="Number of records, nearest by hash code, to re-rank; all re-ranks every relevant record."),
        click.option("--ranking", type=click.Choice(["distance", "fused"]), default="distance", show_default=True,
                     help="Order of results: by distance of features, or by relevance and distance together (Eq. 4)."),
        moved_model_option,
        device_option,
    )  # fmt: skip

    def add_options(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return add_options
