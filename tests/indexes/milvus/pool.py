"""Empty Milvus indexes for tests. Making one takes seconds, so they are used again, and emptied down to the bounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, IndexConfig
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import Server
from semcut.indexes.milvus.schema import choose
from semcut.indexes.milvus.shared_state import catalogue_name
from tests.indexes.generate import World, assert_same_records, encodings

SOME = settings(
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""How properties are tested against a server: each says how many examples it can afford."""


def _similarity(classes: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    drawn = rng.random((classes, classes)) * (rng.random((classes, classes)) < 0.5)
    return np.maximum(drawn, drawn.T)


CONFIGS = [
    IndexConfig(classes=3, bits=32, dim=1),
    IndexConfig(classes=12, bits=72, dim=17, prior=np.array([1e-3, 1, 1e-6, 1] * 3)),
    IndexConfig(classes=4, bits=40, dim=2, similarity=_similarity(4)),
]
"""The shapes of the indexes of properties: few, since each has to be made on every server."""


@dataclass(frozen=True)
class Backend:
    """A Milvus server, and which collections on it are free.

    Attributes:
        uri: where clients find it.
        server: a connection for what an index does not do.
    """

    uri: str
    server: Server
    free: dict[IndexConfig, list[str]]
    taken: dict[str, IndexConfig]

    @property
    def real(self) -> bool:
        """Whether it is not milvus-lite."""
        return not self.server.embedded

    def take(self, config: IndexConfig) -> str:
        """The name of an index that is as if it was just made, for this test alone."""
        names = self.free.setdefault(config, [])
        if names:
            name = names.pop()
            self.empty(name)
        else:
            name = self.unused()
            MilvusIndex.create(self.uri, config, collection=name).close()
        self.taken[name] = config
        return name

    def unused(self) -> str:
        """The name of no index."""
        return f"index_{len(self.taken)}_{np.random.default_rng().integers(1_000_000)}"

    def give_back(self, name: str) -> None:
        """An index can be used by others."""
        self.free[self.taken[name]].append(name)

    def empty(self, name: str) -> None:
        """Delete the records of an index, and its bounds and writers, which would stay."""
        for collection, key in self._collections(name):
            kept = " and cell != -2 and cell != -4" if collection == catalogue_name(name) else ""
            self.server.delete(collection, f"{key} >= -{2**63 - 1}{kept}")

    def settle(self, name: str) -> None:
        """Wait until the server shows everyone what anyone has written: 0.2 s for all reads, not for each."""
        collections = self._collections(name)
        with ThreadPoolExecutor(len(collections)) as pool:
            list(pool.map(lambda one: self.server.count(one[0], f"{one[1]} >= 0", strong=True), collections))

    def _collections(self, name: str) -> list[tuple[str, str]]:
        """Those of an index, with their primary keys."""
        records = [(f"{name}_records", "row")] if choose(self.server) == "apart" else []
        return [(name, "id"), *records, (catalogue_name(name), "key")]

    def clients(self, name: str, count: int = 1, **options) -> list[MilvusIndex]:
        """Several clients of one index."""
        return [MilvusIndex.open(self.uri, collection=name, **options) for _ in range(count)]


@st.composite
def small_worlds(draw: st.DrawFn, *, rows: tuple[int, int] = (0, 60), queries: tuple[int, int] = (1, 6)) -> World:
    """Worlds as of `generate.worlds`, for one of a few configurations."""
    config, count = draw(st.sampled_from(CONFIGS)), draw(st.integers(*rows))
    normalised = draw(st.booleans())
    borders = sorted(draw(st.lists(st.integers(0, count), max_size=2)))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    records = encodings(rng, config, count, normalised=normalised)
    asked = encodings(rng, config, draw(st.integers(*queries)), normalised=normalised, records=False)
    return World(
        config=config,
        batches=[records[start:stop] for start, stop in zip([0, *borders], [*borders, count], strict=True)],
        queries=asked,
        normalised=normalised,
        seed=seed,
    )


def assert_holds(index: MilvusIndex, reference: BruteForceIndex, *, batch_size: int = 7, next_id: bool = True) -> None:
    """The index holds the records of the reference, in whichever way it is asked for them (`next_id` takes long)."""
    ids = np.sort(reference.ids())
    np.testing.assert_array_equal(index.ids(), ids, strict=True)
    assert len(index) == len(ids)
    stats, expected = index.stats(), reference.stats()
    for name in ("records", "removed", "partitions", "normalised", "column_bytes"):
        assert getattr(stats, name) == getattr(expected, name), name
    assert not next_id or index.next_id() == reference.next_id()
    asked = np.concatenate([ids, ids + 1, [-1, 0, 2**62]]) if len(ids) else np.arange(3)
    np.testing.assert_array_equal(index.contains(asked), reference.contains(asked), strict=True)
    assert_same_records(index.get(ids[::-1]), reference.get(ids[::-1]))
    assert index.uris(ids) == reference.uris(ids)
    after = int(ids[len(ids) // 2]) - 1 if len(ids) else 5
    for given in ({}, {"after": after}):
        found, wanted = list(index.iterate(batch_size, **given)), list(reference.iterate(batch_size, **given))
        assert max((len(batch) for batch in found), default=0) <= batch_size
        assert bool(found) == bool(wanted)
        if found:
            assert_same_records(_joined(found), _joined(wanted))


def _joined(batches: list[Encodings]) -> Encodings:
    whole = Encodings.concatenate(batches)
    uris = [uri for batch in batches for uri in (batch.uris or [None] * len(batch))]
    return replace(whole, uris=uris)
