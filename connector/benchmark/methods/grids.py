"""Choose the structures that a data set is searched with, and the points of their parameter grids.

full        all structures and all points
quick       all structures with few points
defaults    the same as quick, but semcut only with the default cutoff and shortlist
growth      for a growth curve: a stored index of semcut with the defaults, and a flat scan of the codes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from semcut.connector.benchmark.methods import faiss_methods
from semcut.connector.benchmark.methods.semcut_methods import Semcut
from semcut.connector.benchmark.methods.structures import Structure
from semcut.indexes.errors import DataError
from semcut.indexes.scanners.engine_names import EngineName, available_engines
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

Grid = Literal["full", "quick", "defaults", "growth"]

_DEFAULT: dict[str, Any] = {
    "cutoffs": (DEFAULT_CUTOFF,),
    "shortlists": (DEFAULT_SHORTLIST,),
    "rankings": ("distance",),
}
_FEW: dict[str, Any] = {"cutoffs": (0.0, DEFAULT_CUTOFF, 0.5), "shortlists": (DEFAULT_SHORTLIST, None)}


def structures(grid: Grid, only: Sequence[str] | None = None) -> list[Structure]:
    """Return the structures of a grid, not built yet.

    Args:
        grid: the name of the grid.
        only: keep only structures whose names begin with one of these, in upper or lower case. None: keep all.

    Raises:
        DataError: no name begins with one of these.
    """
    quick = grid in ("quick", "defaults")
    found: list[Structure] = []
    for place, engine in enumerate(cast(tuple[EngineName, ...], available_engines())):
        options: dict[str, Any] = {
            "full": {},
            "quick": _DEFAULT if place else _FEW,
            "defaults": _DEFAULT,
            "growth": {**_DEFAULT, "stored": True},
        }[grid]
        found.append(Semcut(engine, ranks_all=place == 0, **options))
    if grid == "growth":
        found.append(faiss_methods.flat_with_rerank())
    else:
        found += [
            *faiss_methods.code_indexes(quick=quick),
            *faiss_methods.feature_indexes(quick=quick),
            *faiss_methods.gpu_indexes(quick=quick),
        ]
    chosen = [one for one in found if only is None or any(one.name.lower().startswith(name.lower()) for name in only)]
    if not chosen:
        raise DataError(f"no method begins with {', '.join(only or ())}: there are {', '.join(x.name for x in found)}")
    return chosen
