"""Choose the structures that a data set is searched with, and the points of their parameter grids.

full        all structures and all points
quick       all structures with few points
defaults    the same as quick, but semcut only with the default cutoff and shortlist, by each ranking
growth      for a growth curve: a stored index of semcut with the defaults, and a flat scan of the codes

Methods of optional libraries are listed whether the library is installed or not, and left out of a run if it is not:
`left_out` says which, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, cast

from semcut.connector.benchmark.methods import faiss_methods, joined_graph
from semcut.connector.benchmark.methods.argmax_lists import argmax_lists
from semcut.connector.benchmark.methods.rabitq_indexes import rabitq_indexes
from semcut.connector.benchmark.methods.semcut_methods import RANKINGS, Semcut
from semcut.connector.benchmark.methods.structures import Structure
from semcut.connector.benchmark.methods.usearch_indexes import usearch_indexes
from semcut.indexes.errors import DataError, MissingDependencyError, install_hint
from semcut.indexes.scanners.engine_names import EngineName, available_engines
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

Grid = Literal["full", "quick", "defaults", "growth"]

LIBRARIES = ("usearch", "rabitqlib")
"""Optional libraries; the names of their methods begin with their names."""

_DEFAULT: dict[str, Any] = {
    "cutoffs": (DEFAULT_CUTOFF,),
    "shortlists": (DEFAULT_SHORTLIST,),
    "rankings": ("distance",),
}
_FEW: dict[str, Any] = {"cutoffs": (0.0, DEFAULT_CUTOFF, 0.5), "shortlists": (DEFAULT_SHORTLIST, None)}


def structures(grid: Grid, only: Sequence[str] | None = None, *, classes: int | None = None) -> list[Structure]:
    """Return the structures of a grid, not built yet.

    Args:
        grid: the name of the grid.
        only: keep only structures whose names begin with one of these, in upper or lower case. None: keep all.
        classes: classes of the data set. With few classes, a graph of projected roots is the same as the graph of all
            roots, and left out unless nothing else is asked for. None: keep it.

    Raises:
        DataError: no name begins with one of these.
        MissingDependencyError: the libraries of all structures that are asked for are not installed.
    """
    named = _named(grid, only)
    missing = _missing(named)
    chosen = [one for one in named if _library(one.name) not in missing]
    if not chosen:
        raise MissingDependencyError(
            f"{', '.join(missing)} not installed, needed for the methods {', '.join(x.name for x in named)}: "
            f"{install_hint('rivals')}."
        )
    if classes is not None and classes <= joined_graph.WIDTH:
        return [one for one in chosen if one.name != faiss_methods.PROJECTED] or chosen
    return chosen


def left_out(grid: Grid, only: Sequence[str] | None = None) -> list[str]:
    """Return a line for each optional library that is not installed: which methods are left out, and how to add them.

    Args:
        grid, only: see `structures`.

    Raises:
        DataError: no name begins with one of these.
    """
    named = _named(grid, only)
    return [
        f"left out: {', '.join(one.name for one in named if _library(one.name) == library)}: {reason}; "
        f"to measure them, {install_hint('rivals')}"
        for library, reason in _missing(named).items()
    ]


def _missing(named: Sequence[Structure]) -> dict[str, str]:
    """Return the libraries of structures that cannot be imported, with the reason."""
    missing = {}
    for library in LIBRARIES:
        if any(_library(one.name) == library for one in named):
            try:
                import_module(library)
            except ModuleNotFoundError:
                missing[library] = f"{library} is not installed"
            except (ImportError, OSError) as error:
                missing[library] = f"{library} cannot be loaded ({error})"
    return missing


def _library(name: str) -> str | None:
    """Return the optional library of a structure; None if it has none."""
    return next((library for library in LIBRARIES if name.startswith(library)), None)


def _named(grid: Grid, only: Sequence[str] | None) -> list[Structure]:
    """Return all structures of a grid whose names begin with one of these, whether their libraries are installed."""
    quick = grid in ("quick", "defaults")
    found: list[Structure] = []
    for place, engine in enumerate(cast(tuple[EngineName, ...], available_engines())):
        options: dict[str, Any] = {
            "full": {},
            "quick": _DEFAULT if place else _FEW,
            "defaults": {**_DEFAULT, "rankings": RANKINGS},
            "growth": {**_DEFAULT, "stored": True},
        }[grid]
        found.append(Semcut(engine, ranks_all=place == 0, **options))
    if grid == "growth":
        found.append(faiss_methods.flat_with_rerank())
    else:
        found += [
            *faiss_methods.code_indexes(quick=quick),
            *faiss_methods.feature_indexes(quick=quick),
            *faiss_methods.graphs_with_classes(),
            argmax_lists(),
            *usearch_indexes(quick=quick),
            *rabitq_indexes(quick=quick),
            *faiss_methods.gpu_indexes(quick=quick),
        ]
    chosen = [one for one in found if only is None or any(one.name.lower().startswith(name.lower()) for name in only)]
    if not chosen:
        raise DataError(f"no method begins with {', '.join(only or ())}: there are {', '.join(x.name for x in found)}")
    return chosen
