"""A pool of empty Milvus indexes for tests.

Creating an index takes seconds, so tests reuse indexes; between two tests all rows are deleted, bounds included.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, IndexConfig
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import ServerConnection
from semcut.indexes.milvus.layout import Kind, choose_kind
from semcut.indexes.milvus.shared_rows import CONFIG, IDENTITY, shared_collection_name
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import ATTRIBUTES, World, assert_same_records, encodings

FEW_EXAMPLES = settings(
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""Settings of property tests against a server; each test sets its number of examples."""


def _similarity(classes: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    drawn = rng.random((classes, classes)) * (rng.random((classes, classes)) < 0.5)
    return np.maximum(drawn, drawn.T)


CONFIGS = [
    IndexConfig(classes=3, bits=32, dim=1, stored_features="float32"),
    IndexConfig(
        classes=12,
        bits=72,
        dim=17,
        prior=np.array([1e-3, 1, 1e-6, 1] * 3),
        stored_probabilities=5,
        stored_features="int8",
    ),
    IndexConfig(classes=4, bits=40, dim=2, similarity=_similarity(4), attributes=ATTRIBUTES),
]
"""The configurations of property tests: few, since an index of each has to be created on every server."""


@dataclass(frozen=True)
class Backend:
    """A Milvus server, and a pool of empty indexes on it.

    Attributes:
        uri: the address of the server.
        server: a connection, for calls that an index does not make.
        free: names of the indexes that no test uses, by configuration.
        taken: the configuration of every index that a test has used, by name.
    """

    uri: str
    server: ServerConnection
    free: dict[IndexConfig, list[str]]
    taken: dict[str, IndexConfig]

    @property
    def is_server(self) -> bool:
        """Whether Milvus runs as a server, not as milvus-lite."""
        return not self.server.embedded

    @cached_property
    def kind(self) -> Kind:
        """The layout of its indexes."""
        return choose_kind(self.server)

    def take(self, config: IndexConfig) -> str:
        """Return the name of an empty index that only one test uses."""
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
        """Return a name that no index has."""
        return f"index_{len(self.taken)}_{np.random.default_rng().integers(1_000_000)}"

    def give_back(self, name: str) -> None:
        """Return an index to the pool, so that other tests can use it."""
        self.free[self.taken[name]].append(name)

    def empty(self, name: str) -> None:
        """Delete the records of an index, its bounds and the rows of its writers."""
        for collection, key in self._collections(name):
            kept = f" and cell != {CONFIG} and cell != {IDENTITY}" if collection == shared_collection_name(name) else ""
            self.server.delete(collection, f"{key} >= -{2**63 - 1}{kept}")

    def wait_until_visible(self, name: str) -> None:
        """Wait until every client sees what any client has written: 0.2 s once, not for every read."""
        collections = self._collections(name)
        with ThreadPoolExecutor(len(collections)) as pool:
            list(pool.map(lambda one: self.server.count(one[0], f"{one[1]} >= 0", strong=True), collections))

    def _collections(self, name: str) -> list[tuple[str, str]]:
        """Return the collections of an index, with their primary keys."""
        records = [(f"{name}_records", "row")] if self.kind == "apart" else []
        return [(name, "id"), *records, (shared_collection_name(name), "key")]

    def clients(self, name: str, count: int = 1, **options) -> list[MilvusIndex]:
        """Open an index `count` times."""
        return [MilvusIndex.open(self.uri, collection=name, **options) for _ in range(count)]


@st.composite
def small_worlds(draw: st.DrawFn, *, rows: tuple[int, int] = (0, 60), queries: tuple[int, int] = (1, 6)) -> World:
    """Draw worlds like those of `generate.worlds`, with one of a few configurations."""
    config, count = draw(st.sampled_from(CONFIGS)), draw(st.integers(*rows))
    normalised, any_mass = config.stored_features != "float32" or draw(st.booleans()), draw(st.booleans())
    borders = sorted(draw(st.lists(st.integers(0, count), max_size=2)))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    records = stored_values(config, encodings(rng, config, count, normalised=normalised, any_mass=any_mass))
    query_batch = encodings(rng, config, draw(st.integers(*queries)), normalised=normalised, records=False)
    return World(
        config=config,
        batches=[records[start:stop] for start, stop in zip([0, *borders], [*borders, count], strict=True)],
        queries=query_batch,
        normalised=normalised,
        seed=seed,
    )


def assert_holds(index: MilvusIndex, reference: BruteForceIndex, *, batch_size: int = 7, next_id: bool = True) -> None:
    """Check that every way of reading gives the records of the reference (`next_id` takes long)."""
    ids = np.sort(reference.ids())
    np.testing.assert_array_equal(index.ids(), ids, strict=True)
    assert len(index) == len(ids)
    stats, expected = index.stats(), reference.stats()
    for name in ("records", "removed", "partitions", "normalised", "column_bytes"):
        assert getattr(stats, name) == getattr(expected, name), name
    assert not next_id or index.next_id() == reference.next_id()
    candidates = np.concatenate([ids, ids + 1, [-1, 0, 2**62]]) if len(ids) else np.arange(3)
    np.testing.assert_array_equal(index.contains(candidates), reference.contains(candidates), strict=True)
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
    return replace(whole, uris=uris, any_mass=True)
