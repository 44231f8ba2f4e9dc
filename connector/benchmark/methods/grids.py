"""Which structures, with which points of their parameters, a data set is searched with.

full        everything
quick       a few points of every structure
defaults    the same, and semcut at its default cutoff and shortlist alone
growth      the defaults of semcut, stored, and a flat scan of the codes, for a growth curve
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from semcut.connector.benchmark.methods import faiss_methods, semcut_methods
from semcut.connector.benchmark.methods.methods import Structure
from semcut.connector.benchmark.methods.semcut_methods import Semcut
from semcut.indexes.errors import DataError
from semcut.indexes.scanners.protocol import EngineName, available

Grid = Literal["full", "quick", "defaults", "growth"]


def structures(grid: Grid, only: Sequence[str] | None = None) -> list[Structure]:
    """What is built for a grid.

    Args:
        grid: which methods.
        only: beginnings of names, in any case; None: all.

    Raises:
        DataError: none of them begins so.
    """
    quick = grid in ("quick", "defaults")
    default: dict[str, Any] = {
        "cutoffs": (semcut_methods.CUTOFF,),
        "shortlists": (semcut_methods.SHORTLIST,),
        "rankings": ("distance",),
    }
    few: dict[str, Any] = {"cutoffs": (0.0, semcut_methods.CUTOFF, 0.5), "shortlists": (semcut_methods.SHORTLIST, None)}
    found: list[Structure] = []
    for place, engine in enumerate(cast(tuple[EngineName, ...], available())):
        options = {
            "full": {},
            "quick": default if place else few,
            "defaults": default,
            "growth": {**default, "stored": True},
        }[grid]
        found.append(Semcut(engine, whole=place == 0, **options))
    if grid == "growth":
        found.append(faiss_methods.flat_with_rerank())
    else:
        found += [
            *faiss_methods.binary(quick=quick),
            *faiss_methods.features(quick=quick),
            *faiss_methods.on_gpu(quick=quick),
        ]
    chosen = [one for one in found if only is None or any(one.name.lower().startswith(name.lower()) for name in only)]
    if not chosen:
        raise DataError(f"no method begins with {', '.join(only or ())}: there are {', '.join(x.name for x in found)}")
    return chosen
