"""Random encodings with all kinds of ties and extreme values, and assertions that compare results.

Hypothesis draws the structure (classes, bits, rows, kinds), and shrinks it. Values come from a numpy generator, whose
seed hypothesis draws too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

import faiss
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, IndexConfig, RangeResult, SearchResult, SemanticIndex
from semcut.indexes.scoring.equations import Similarity, hamming, relevance
from semcut.indexes.stored_values import stored_values
from tests.thorough import examples

PROPERTY = settings(
    max_examples=examples(60),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""The settings of property tests. Tests that write files use a new directory for each example."""

RANKED = ("ids", "distances", "relevance", "scores", "hamming")
"""Fields of a result that depend on the records alone, not on how an index searches them."""


# values


def probabilities(rng: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    """Draw (rows, classes) float32: peaked, flat, one-hot, tied, uniform, denormal, equal, or with sums not quite 1."""
    noise = rng.standard_normal((rows, classes))
    softmax = _softmax(noise * rng.choice([0.1, 1, 3, 6, 12], (rows, 1)))
    one_hot = np.zeros((rows, classes))
    one_hot[np.arange(rows), rng.integers(0, classes, rows)] = 1
    tied = (noise.argsort(axis=1).argsort(axis=1) < min(classes, 3)) / min(classes, 3)
    denormal = np.where(one_hot > 0, one_hot, rng.choice([0, 1.4e-45, 3e-42, 1e-38, 1e-30], (rows, classes)))
    sixteenths = rng.multinomial(16, softmax) / 16
    first = rng.choice([0.95, 0.8, 0.7], (rows, 1))  # at the borders between kinds of cells
    second = np.minimum(1 - first, 0.15)
    border = first * one_hot + second * np.roll(one_hot, 1, axis=1) + (1 - first - second) * np.roll(one_hot, 2, axis=1)
    off = softmax * (1 + rng.choice([-9e-4, 9e-4], (rows, 1)))
    heavy = one_hot * (1 + rng.choice([-9e-4, 9e-4], (rows, 1)))
    uniform = np.full((rows, classes), 1 / classes)
    kinds = np.stack([softmax, softmax, one_hot, tied, denormal, sixteenths, border, off, heavy, uniform])
    kind = rng.integers(0, len(kinds), rows) if rng.random() < 0.6 else rng.integers(0, len(kinds))
    return _with_duplicates(rng, kinds[kind, np.arange(rows)].astype(np.float32))


def masses(rng: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    """Draw (rows, classes) float32 whose sums are between 0 and the number of classes.

    They are the largest values of a softmax, softmax outputs of images that may show none of the classes, several
    labels, all or no labels, or ordinary rows.
    """
    ordinary = probabilities(rng, rows, classes)
    places = ordinary.argsort(axis=1).argsort(axis=1)
    largest = np.where(places >= classes - rng.integers(1, 4), np.floor(ordinary * 65536) / 65536, 0)
    some = ordinary * rng.choice([0, 0.25, 0.9, 1], (rows, 1))
    labels = 1 / (1 + np.exp(rng.choice([1, 4], (rows, 1)) * (rng.standard_normal((rows, classes)) - 1)))
    full = np.repeat(rng.choice([0.0, 1.0], (rows, 1)), classes, axis=1)
    kinds = np.stack([ordinary, largest, some, labels, full])
    kind = rng.integers(0, len(kinds), rows) if rng.random() < 0.5 else rng.integers(0, len(kinds))
    return _with_duplicates(rng, kinds[kind, np.arange(rows)].astype(np.float32))


def peaked(rng: np.random.Generator, rows: int, classes: int, sharpness: float = 6) -> np.ndarray:
    """Draw (rows, classes) float32: the output of a classifier that is mostly sure."""
    return _softmax(rng.standard_normal((rows, classes)) * sharpness).astype(np.float32)


def codes(rng: np.random.Generator, dominant: np.ndarray, bits: int) -> np.ndarray:
    """Draw (rows, bits / 8) uint8: random codes, three different codes, or noisy codes of the dominant class."""
    rows, width = len(dominant), bits // 8
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, (rows, width), np.uint8)
    if kind == 1:
        return rng.integers(0, 256, (3, width), np.uint8)[rng.integers(0, 3, rows)]
    centres = rng.integers(0, 256, (int(dominant.max(initial=0)) + 1, width), np.uint8)
    flipped = np.packbits(rng.random((rows, bits)) < 0.1, axis=1)
    return centres[dominant] ^ flipped


def features(rng: np.random.Generator, rows: int, dim: int, *, normalised: bool) -> np.ndarray:
    """Draw (rows, dim) float32: gaussian, of few values, or equal and opposite; huge or tiny if not normalised."""
    kind = rng.integers(3)
    values = rng.standard_normal((rows, dim))
    if kind == 1:
        values = rng.integers(-1, 2, (rows, dim)).astype(float)
    if kind == 2:
        values = np.zeros((rows, dim))
        values[np.arange(rows), rng.integers(0, dim, rows)] = rng.choice([-1, 1], rows)
    values[np.linalg.norm(values, axis=1) == 0, 0] = 1
    if normalised:
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        if rng.random() < 0.4:
            values *= 1 + rng.uniform(-9e-4, 9e-4, (rows, 1))
    else:
        values *= rng.choice([1e-25, 1e-15, 0.1, 3, 1e10, 1e16])
    return _with_duplicates(rng, values.astype(np.float32))


def ids(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Draw (rows,) int64: unique, in random order, with gaps, from 0 to the largest possible id."""
    if not rows:
        return np.empty(0, np.int64)
    small, huge = rng.integers(0, 50 * rows + 50, rows), 2**62 + rng.integers(0, 9 * rows + 9, rows)
    drawn = np.unique(np.concatenate([small, huge]))
    drawn[-1], drawn[0] = 2**63 - 1, 0
    return rng.permutation(drawn)[:rows]


def encodings(
    rng: np.random.Generator,
    config: IndexConfig,
    rows: int,
    *,
    normalised: bool,
    records: bool = True,
    any_mass: bool = False,
) -> Encodings:
    """Draw encodings for an index; records have ids and some have uris."""
    p = (masses if any_mass else probabilities)(rng, rows, config.classes)
    numbers = ids(rng, rows)
    uris = [f"image {number}.jpg" if number % 3 else None for number in numbers.tolist()]
    return Encodings(
        probabilities=p,
        codes=codes(rng, p.argmax(axis=1), config.bits),
        features=features(rng, rows, config.dim, normalised=normalised),
        ids=numbers if records else None,
        uris=uris if records and rng.random() < 0.5 else None,
        attributes=attributes(rng, config, rows) if records else None,
        any_mass=any_mass,
    )


def classified(rng: np.random.Generator, config: IndexConfig, rows: int, *, first_id: int = 0) -> Encodings:
    """Draw ordinary records: mostly sure of their class, with codes independent of the class, features of length 1."""
    values = rng.standard_normal((rows, config.dim))
    return Encodings(
        probabilities=peaked(rng, rows, config.classes),
        codes=rng.integers(0, 256, (rows, config.bits // 8), np.uint8),
        features=(values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32),
        ids=np.arange(first_id, first_id + rows),
        attributes=attributes(rng, config, rows),
    )


ATTRIBUTES = {
    "price": "float", "stars": "int", "camera": "category", "tags": "categories", "taken": "datetime", "sold": "bool",
}  # fmt: skip
"""An attribute of each type."""


def attributes(rng: np.random.Generator, config: IndexConfig, rows: int) -> dict[str, list] | None:
    """Draw values of few kinds for each attribute of an index, a tenth of them missing; None if it has none."""
    if not config.attributes:
        return None
    first = datetime(2020, 2, 28, 23, tzinfo=timezone.utc)
    values = {
        "float": [0.0, -0.0, 1.5, 20, -1e300, 5e-324],
        "int": [0, 1, 2, 3, -5, 2**63 - 1],
        "category": ["a", "b", '\u00e9 "x"\n', "a" * 1000],
        "categories": [[], ["sea"], ["sea", "sun"], ["sun", "sea", "a\\b"]],
        "datetime": [first, first + timedelta(days=1), datetime(1, 1, 1, tzinfo=timezone.utc)],
        "bool": [True, False],
    }
    return {
        name: [None if rng.random() < 0.1 else values[kind][rng.integers(len(values[kind]))] for _ in range(rows)]
        for name, kind in config.attributes.items()
    }


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


def _with_duplicates(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Replace some of the rows by duplicates of others."""
    source = np.arange(len(values))
    copies = rng.random(len(values)) < rng.choice([0, 0.3])
    source[copies] = rng.permutation(source)[copies]
    return values[source]


# worlds


@dataclass(frozen=True)
class World:
    """The data of a test: the configuration of an index, records in batches as it stores them, and queries."""

    config: IndexConfig
    batches: list[Encodings]
    queries: Encodings
    normalised: bool
    seed: int

    def __repr__(self) -> str:
        sizes = [len(batch) for batch in self.batches]
        return f"World({self.config!r}, batches of {sizes}, {len(self.queries)} queries, seed={self.seed})"

    @property
    def records(self) -> Encodings:
        return Encodings.concatenate(self.batches)

    @cached_property
    def reference(self) -> BruteForceIndex:
        """The reference index with all records, which nothing may change."""
        return self.brute_force()

    def all_relevant(self, cutoff: float, ranking: str) -> SearchResult:
        """Return all relevant records of each query, best first, as the reference finds them."""
        if (cutoff, ranking) not in self._all_relevant:
            self._all_relevant[cutoff, ranking] = self.reference.search(
                self.queries, k=max(1, len(self.records)), cutoff=cutoff, shortlist=None, ranking=ranking,
                fill=False,
            )  # fmt: skip
        return self._all_relevant[cutoff, ranking]

    @cached_property
    def _all_relevant(self) -> dict[tuple[float, str], SearchResult]:
        return {}

    def relevances(self) -> np.ndarray:
        """Return R of each query and record: (queries, records) float32."""
        weights = Similarity(self.config).weights(self.queries.probabilities)
        return relevance(weights[:, None], self.records.probabilities[None])

    def hammings(self) -> np.ndarray:
        """Return the Hamming distance of each query and record: (queries, records) int32."""
        return hamming(self.queries.codes[:, None], self.records.codes[None])

    def cutoffs(self) -> list[float]:
        """Return usual cutoffs, relevances that occur, and values just above and below such relevances."""
        rng = np.random.default_rng(self.seed)
        occurring = np.unique(self.relevances())
        occurring = occurring[(occurring >= 0) & (occurring < 1)]
        chosen = [0.0, 0.05, 0.2, 0.5, 0.9, 1e-40]
        if len(occurring):
            at = float(rng.choice(occurring))
            chosen += [at, float(rng.choice(occurring)), float(np.nextafter(np.float32(at), np.float32(0)))]
            chosen += [at * (1 - 1e-9), min(at * (1 + 1e-9), 1 - 1e-9)]
        return [float(cutoff) for cutoff in rng.permutation(chosen)]

    def brute_force(self) -> BruteForceIndex:
        """Return the reference index with all records."""
        return filled(BruteForceIndex(self.config), self.batches)


def filled(index: SemanticIndex, batches: list[Encodings]) -> SemanticIndex:
    """Add the batches to the index, and return it."""
    for batch in batches:
        index.add(batch)
    return index


@st.composite
def configs(draw: st.DrawFn) -> IndexConfig:
    """Draw configurations of all sizes, with a prior, a similarity or neither."""
    classes = draw(st.one_of(st.integers(2, 12), st.sampled_from([2, 40, 300])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    meaning = draw(st.sampled_from(["plain", "plain", "prior", "uneven prior", "similarity", "large similarity"]))
    prior = similarity = None
    if meaning == "prior":
        prior = rng.random(classes) + 0.05
    elif meaning == "uneven prior":
        prior = rng.choice([1e-6, 1e-3, 1], classes)
    elif meaning != "plain" and classes <= 40:
        similarity = rng.random((classes, classes)) * (rng.random((classes, classes)) < 0.5)
        similarity = np.maximum(similarity, similarity.T) * (50 if meaning == "large similarity" else 1)
        if draw(st.booleans()):
            np.fill_diagonal(similarity, 1)
    return IndexConfig(
        classes=classes,
        bits=draw(st.sampled_from([32, 40, 64, 72, 128, 256, 1024])),
        dim=draw(st.sampled_from([1, 2, 3, 8, 17, 64])),
        prior=prior,
        similarity=similarity,
        groups=draw(st.sampled_from([0, 0, 1, 2, 64])),
        stored_probabilities=draw(st.sampled_from([0, 0, *{1, min(3, classes), min(16, classes)}])),
        stored_features=draw(st.sampled_from(["float32", "float32", "float16", "int8"])),
        feature_step=draw(st.sampled_from([1 / 127, 0.01])),
        attributes=draw(st.sampled_from([{}, ATTRIBUTES])),
    )


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    rows: tuple[int, int] = (1, 120),
    queries: tuple[int, int] = (1, 10),
) -> World:
    """Draw worlds of 1 to 4 batches; `rows` and `queries` are the smallest and the largest number in all."""
    config, count = draw(configs()), draw(st.integers(*rows))
    normalised = config.stored_features != "float32" or draw(st.booleans())  # others may be out of its range
    any_mass = draw(st.booleans())
    borders = sorted(draw(st.lists(st.integers(0, count), max_size=3)))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    given = encodings(rng, config, count, normalised=normalised, any_mass=any_mass)
    records = stored_values(config, given)
    wanted = encodings(
        rng, config, draw(st.integers(*queries)), normalised=normalised, records=False, any_mass=any_mass
    )
    if draw(st.booleans()):  # queries that are records
        wanted = Encodings.concatenate([wanted[1:], records[:1]])
    return World(
        config=config,
        batches=[records[start:stop] for start, stop in zip([0, *borders], [*borders, count], strict=True)],
        queries=wanted,
        normalised=normalised,
        seed=seed,
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Limit FAISS to a number of threads, in this thread. With one, small data is searched without a barrier."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


# comparisons


def assert_same(found: SearchResult, expected: SearchResult) -> None:
    """Assert that two results have the same records with the same numbers, bit for bit."""
    for name in RANKED:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name, strict=True)


def assert_same_range(found: RangeResult, expected: RangeResult) -> None:
    """Assert that two results have the same records, with the same numbers."""
    for name in ("offsets", "ids", "distances", "relevance", "scores", "hamming"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name, strict=True)


def assert_same_records(found: Encodings, expected: Encodings) -> None:
    """Assert that two batches have the same records, bit for bit."""
    for name in ("ids", "probabilities", "codes", "features"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name, strict=True)
    uris = [[None] * len(batch) if batch.uris is None else list(batch.uris) for batch in (found, expected)]
    assert uris[0] == uris[1]
    assert _plain(found.attributes) == _plain(expected.attributes)
    keys = [None if batch.keys is None else list(batch.keys) for batch in (found, expected)]
    assert keys[0] == keys[1]


def _plain(attributes: dict[str, list] | None) -> dict[str, list]:
    """Return attributes with categories in order, as an index returns them."""
    return {
        name: [tuple(sorted(value)) if isinstance(value, list) else value for value in values]
        for name, values in (attributes or {}).items()
    }


def assert_valid_shortlist(
    result: SearchResult, world: World, *, k: int, cutoff: float, shortlist: int, ranking: str
) -> None:
    """Assert that a result is the k best of `shortlist` nearest relevant records, with any choice among ties.

    The border is the largest Hamming distance in the shortlist. Every relevant record nearer than the border is in the
    shortlist, so it is in the result or ranks below all of the result. Records at the border are in the result at most
    as often as the nearer records leave slots. The rule for ties is not checked here, but by `assert_shortlist`.
    """
    everything = world.all_relevant(cutoff, ranking)
    for query, given in enumerate(result.ids):
        order = [number for number in everything.ids[query].tolist() if number >= 0]  # all relevant records, best first
        place = {number: at for at, number in enumerate(order)}
        near = np.sort(everything.hamming[query, : len(order)])
        members = [number for number in given.tolist() if number >= 0]
        assert (given[len(members) :] == -1).all()
        assert len(members) == min(k, len(order))
        assert set(members) <= set(order)
        assert [place[number] for number in members] == sorted(place[number] for number in members)
        at = [place[number] for number in members]
        for name in RANKED:
            assert np.array_equal(
                getattr(result, name)[query, : len(at)], getattr(everything, name)[query, at], equal_nan=True
            ), name
        if len(order) <= shortlist:
            assert members == order[:k]
            continue
        border = near[shortlist - 1]
        h = dict(zip(order, everything.hamming[query].tolist(), strict=False))
        assert all(h[number] <= border for number in members)
        assert sum(h[number] == border for number in members) <= shortlist - int(np.sum(near < border))
        better = order[: place[members[-1]]]
        assert all(number in members for number in better if h[number] < border)


def assert_shortlist(
    result: SearchResult, world: World, *, k: int, cutoff: float, shortlist: int, ranking: str
) -> None:
    """Assert that a result is valid, and bit for bit that of brute force, which breaks ties by the rule."""
    parameters = {"k": k, "cutoff": cutoff, "shortlist": shortlist, "ranking": ranking}
    assert_valid_shortlist(result, world, **parameters)
    assert_same(result, world.reference.search(world.queries, fill=False, **parameters))


def each(world: World) -> Iterator[tuple[float, str]]:
    """Yield some cutoffs and rankings for searches of a world."""
    rankings = ["distance", "fused", "relevance"] if world.normalised else ["distance", "relevance"]
    for place, cutoff in enumerate(world.cutoffs()[:5]):
        yield cutoff, rankings[place % len(rankings)]
