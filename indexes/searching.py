"""Which engine searches an index, and how: the one place that knows the engines by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from indexes.base import SearchResult
from indexes.encodings import Encodings
from indexes.hamming.cpu import IvfEngine
from indexes.params import SearchParams
from indexes.pipeline import Pipeline
from indexes.relevance import Similarity
from indexes.state import State

if TYPE_CHECKING:
    from indexes.hamming.compiled import CompiledEngine

Engine: TypeAlias = "IvfEngine | CompiledEngine"

_LOAD_ROWS = 1 << 18


class Search(Protocol):
    """A search of one state of an index."""

    def search(self, queries: Encodings, params: SearchParams, scored: bool) -> SearchResult:
        """As `Pipeline.search`."""
        ...


def engine_of(state: State, name: str) -> Engine:
    """An engine, of a name that `hamming.chosen` gave, with the codes of all records."""
    if name == "compiled":
        from indexes.hamming.compiled import CompiledEngine

        compiled = CompiledEngine(state.cells.config.bits)
        rows = state.live
        whole = len(rows) == len(state.columns)
        codes, cells = state.columns.codes, state.columns.cells
        compiled.add(codes if whole else codes[rows], rows, cells if whole else cells[rows])
        return compiled
    engine = IvfEngine(state.cells.config.bits)
    for start in range(0, len(state), _LOAD_ROWS):
        rows = state.live[start : start + _LOAD_ROWS]
        engine.add(state.columns.codes[rows], rows, state.columns.cells[rows])
    return engine


def search_of(state: State, engine: Engine, similarity: Similarity) -> Search:
    """How to search a state whose codes an engine holds."""
    if isinstance(engine, IvfEngine):
        return Pipeline(state.columns, state.cells, engine, similarity)
    from indexes.compiled.search import CompiledPipeline

    return CompiledPipeline(state.columns, state.cells, engine, similarity)
