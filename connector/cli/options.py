"""Options that several commands share, each with one name, one default and one help text.

This module must load without torch and numpy, because `semcut --help` and the commands that maintain a stored index
import it. Options that choose images are in `image_options`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

_F = TypeVar("_F", bound=Callable[..., Any])


class PathType(click.Path):
    """The type of a path. An empty one, of a shell variable that is not set, must not mean the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, as a `Path` or as text."""
        if not str(value):
            self.fail("the path is empty: is a variable of the shell not set? The current directory is .", param, ctx)
        return super().convert(value, param, ctx)


class WrittenType(PathType):
    """The type of a file to write. It may exist only if it is such a file, not a photo or an index given by mistake.

    Args:
        what: what the file is, with an article.
        begins: the bytes with which such a file begins, one of several.
        mark: bytes that are in its first 64 bytes.
    """

    def __init__(self, what: str, *begins: bytes, mark: bytes = b"") -> None:
        super().__init__(path_type=Path)
        self._what, self._begins, self._mark = what, begins, mark

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        path = super().convert(value, param, ctx)
        reason = self.refusal(path)
        if reason is not None:
            self.fail(reason, param, ctx)
        return path

    def refusal(self, path: Path) -> str | None:
        """Say why a path must not be written; None if nothing is there, or such a file."""
        above = next((folder for folder in path.parents if os.path.lexists(folder)), None)
        if above is not None and not os.path.isdir(above):
            return f"{above} is no folder, so {path} cannot be written: choose another name"
        if os.path.isdir(path):
            return f"{path} is a directory: give the name of a file"
        if os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read(64)
            if content and not (content.startswith(self._begins) and self._mark in content):
                return f"{path} exists, and is not {self._what}: choose another name, or delete it"
        return None


PATH = PathType(path_type=Path)
SOURCE = PathType(path_type=str)
"""A folder, an archive or the name of a data set; or the name of a collection in place of an index."""
PICTURE = WrittenType("a picture of results", b"\x89PNG\r\n\x1a\n", mark=b"Software\0semcut")
REPORT = WrittenType("a report of a migration", b'{\n  "source"', b'{\n  "records"')

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Device that runs the network: cpu, cuda, cuda:0."
)
moved_model_option = click.option(
    "--model", type=PATH, help="Run directory of the network, if it was moved after the index was made."
)


class ShortlistType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --shortlist: a number of records, "all", or "own" for that of the index."""

    name = "n|all"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["own"] | None:
        """Return the number, None for all, or "own"."""
        if value is None or value == "all":
            return None
        if value == "own":
            return "own"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor all", param, ctx)


class CutoffType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --cutoff: a number, "none" for no cutoff, or "own" for that of the index."""

    name = "t|none"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Literal["own"] | None:
        """Return the number, None for none, or "own"."""
        if value is None or value == "none":
            return None
        if value == "own":
            return "own"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor none", param, ctx)


class AttributeOption(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --attribute: a name and a type, such as price=float.

    Args:
        typed: whether the type must be given; otherwise a name alone stands for a type that follows from the values.
    """

    name = "name=type"

    def __init__(self, *, typed: bool) -> None:
        self._typed = typed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | None]:
        """Return the name and the type, None if no type is given."""
        from semcut.indexes.attributes.attribute_types import TYPES, is_attribute_name

        name, given, kind = str(value).partition("=")
        if not is_attribute_name(name):
            self.fail(f"{name!r} is no name of an attribute: a name has letters, digits and _", param, ctx)
        if (given or self._typed) and kind not in TYPES:
            self.fail(f"{value!r} has no type of an attribute: give {name}=TYPE, {', '.join(TYPES)}", param, ctx)
        return name, kind or None


def attributes_named(ctx: click.Context, param: click.Parameter, given: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the types of attributes by name, each given once; a callback of click."""
    found: dict[str, Any] = {}
    for name, kind in given:
        if name in found:
            raise click.BadParameter(f"the attribute {name} is given twice", ctx, param)
        found[name] = kind
    return found


where_option = click.option(
    "--where",
    metavar="FILTER",
    help="Only records whose attributes match, such as 'price < 20'; see the guide Filters.",
)


def search_options(k: int) -> Callable[[_F], _F]:
    """Create a decorator that adds the options of a search; `k` is the default number of results."""
    options = (
        click.option("-k", default=k, show_default=True, help="Number of records to find for each image."),
        click.option("--cutoff", "-t", type=CutoffType(), metavar="T|none", default="own",
                     help="Records whose relevance is above this value are relevant; none: all records are.  [default: "
                     f"that of the index, shown by info: {DEFAULT_CUTOFF}, or 0 if its network was adopted]"),
        click.option("--shortlist", type=ShortlistType(), metavar="N|all", default="own",
                     help="Number of records, nearest by hash code, to re-rank; all re-ranks every relevant record.  "
                     f"[default: that of the index, shown by info: {DEFAULT_SHORTLIST}, or what calibration chose]"),
        click.option("--ranking", type=click.Choice(["distance", "fused", "relevance", "own"]), default="own",
                     help="Order of results: by distance of features, by relevance, or by both (fused, Eq. 4).  "
                     "[default: that of the index, shown by info]"),
        click.option("--expand", type=click.IntRange(0), default=0, metavar="N",
                     help="Search again with the mean of each query and its first N results (query expansion)."),
        moved_model_option,
        device_option,
    )  # fmt: skip

    def add_options(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return add_options
