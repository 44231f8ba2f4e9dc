"""Any argument of encodings and indexes is either valid, or refused in one sentence without changing the index."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    Encodings,
    FaissIndex,
    InvalidEncodingsError,
    InvalidParameterError,
    SearchResult,
    SemanticIndex,
    SemcutError,
)
from semcut.indexes.search_params import SearchParams
from tests.indexes import generate
from tests.indexes.conftest import CONFIG
from tests.indexes.generate import PROPERTY, World, assert_same, assert_shortlist, threads
from tests.thorough import examples

FUZZ = settings(PROPERTY, max_examples=examples(300))

LARGEST = 2**63 - 1

NAMES = {"probabilities": np.float32, "codes": np.uint8, "features": np.float32, "ids": np.int64}

FLOATS = ("f2", ">f2", "f4", ">f4", "f8", ">f8", "g")

INTEGERS = ("i8", ">i8", "u8", ">u8")

OTHERS = ("?", "i1", "u1", "i4", "f4", "f8", "u8", "c8", "c16", "O", "U5", "S5", "M8[s]", "m8[ns]", "i4,f4", "V3")

SPECIAL = [
    np.longdouble(text)
    for text in (
        *("nan", "inf", "-inf", "-0.0", "5e-324", "1.4e-45", "-1.4e-45", "1e-40", "-1e-40", "1e-4000"),
        *("2", "-1", "1e-30", "1e15", "3e18", "3.2e18", "1e19", "-1e38", "1e300", "1e4000"),
    )
]

SPECIAL_IDS = [-1, -(2**63), -(2**70), 0, 1, 2**31, 2**32, 2**53 + 1, 2**62, LARGEST, 2**63, 2**64 - 1, 2**64, 10**400]

TEXTS = st.one_of(st.text(max_size=4), st.text(st.characters(), max_size=4), st.sampled_from(["", "\0", "a\0b", "é\n"]))


# arrays of all kinds


class Derived(np.ndarray):
    """A subclass of arrays, as some libraries return."""


def unaligned(array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        return array
    moved = np.ndarray(array.shape, array.dtype, np.zeros(array.nbytes + 1, np.uint8), offset=1)
    moved[...] = array
    return moved


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "plain": lambda a: a,
    "Fortran": np.asfortranarray,
    "backwards": lambda a: a[::-1] if a.ndim else a,
    "mirrored": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1] if a.ndim else a,
    "every second": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=-1)[::2, ..., ::3] if a.ndim > 1 else a,
    "one row for all": lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim and len(a) else a,
    "unaligned": unaligned,
    "read-only": read_only,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "derived": lambda a: a.view(Derived),
    "masked": lambda a: np.ma.array(a, mask=np.zeros(a.shape, bool)),
}

DISTORTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a) if a.ndim else a,
    "transposed": lambda a: a.T,
    "ragged": lambda a: [*a.tolist(), [1]] if a.ndim else a,
    "in a list": lambda a: [a],
}


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return array.astype(dtype) if dtype != "V3" else np.zeros(array.shape, dtype)


@st.composite
def distorted(draw: st.DrawFn, array: np.ndarray) -> Any:
    """Draw the array with another shape, type or layout, which is often invalid."""
    if draw(st.booleans()):
        rows, width = len(array), array.shape[-1]
        shapes = [(), (0,), (rows,), (width,), (rows, 0), (0, width), (rows + 1, width), (rows, width + 1)]
        array = np.resize(array, draw(st.sampled_from([*shapes, (rows, width, 1), (2, rows, width)])))
    if draw(st.booleans()):
        array = cast(array, draw(st.sampled_from(OTHERS)))
    return draw(st.sampled_from([*LAYOUTS.values(), *DISTORTIONS.values()]))(array)


def junk() -> st.SearchStrategy[Any]:
    """Draw values that are not arrays."""
    lists = st.recursive(scalars(), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
    return st.one_of(lists, st.sampled_from([{}, {1: 2}, set(), object(), int, ..., range(3), iter([1]), b"ab"]))


def scalars() -> st.SearchStrategy[Any]:
    """Draw any single value."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from(SPECIAL_IDS),
        st.floats(),
        st.complex_numbers(),
        TEXTS,
        st.binary(max_size=3),
    )


def ids_of_records() -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 13, 2**62, LARGEST]), max_size=6, unique=True).map(
        lambda numbers: np.array(numbers, np.int64)
    )


@st.composite
def wanted_ids(draw: st.DrawFn) -> Any:
    """Draw the ids that a caller may pass: valid ones, ones out of range, and values that are not ids."""
    kind = draw(st.sampled_from(["sound", "sound", "special", "mixed", "unsigned", "cast", "one", "junk"]))
    ids = draw(ids_of_records())
    if kind == "sound":
        return draw(st.sampled_from(list(LAYOUTS.values())))(cast(ids, draw(st.sampled_from(INTEGERS))))
    if kind == "special":
        return [*ids.tolist(), draw(st.sampled_from(SPECIAL_IDS))]
    if kind == "mixed":
        return [*ids.tolist(), *draw(st.lists(scalars(), max_size=2))]
    if kind == "unsigned":
        return np.array([*ids.tolist(), draw(st.integers(0, 2**64 - 1))], np.uint64)
    if kind == "cast":
        array = cast(ids, draw(st.sampled_from(OTHERS)))
        return draw(st.sampled_from([ids, array, array[:, None], array.tolist(), np.repeat(array, 2)]))
    if kind == "one":
        return draw(st.sampled_from([*ids[:1].tolist(), *ids[:1], np.int8(3), np.uint64(8), np.array(5), 2**64, True]))
    return draw(junk())


@st.composite
def uris_of(draw: st.DrawFn, rows: int) -> Any:
    """Draw None, a uri for each row, or invalid values."""
    texts = draw(st.lists(st.one_of(st.none(), TEXTS), min_size=rows, max_size=rows))
    filled = [text or "x" for text in texts]
    forms = [None, None, texts, tuple(texts), np.array(texts, object), np.array(filled, "U4")]
    wrong = ["ab", "", b"ab", {}, 5, iter(texts), set(filled), texts[1:], [*texts, None], np.array(filled, "O")[::-1]]
    other = draw(st.lists(scalars(), min_size=rows, max_size=rows))
    return draw(st.sampled_from([*forms, *forms, *wrong, other, np.arange(rows), np.zeros(rows, "S2")]))


@st.composite
def columns(draw: st.DrawFn, *, sound: bool = False) -> dict[str, Any]:
    """Draw arguments of `Encodings` with the widths of `CONFIG`; `sound` ones are valid, of any type and layout."""
    ids = draw(ids_of_records())
    rows = len(ids)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values: dict[str, Any] = {
        "probabilities": rng.multinomial(16, np.full(CONFIG.classes, 1 / CONFIG.classes), rows) / np.longdouble(16),
        "codes": rng.integers(0, 256, (rows, CONFIG.bits // 8), np.uint8),
        "features": generate.features(rng, rows, CONFIG.dim, normalised=draw(st.booleans())).astype(np.longdouble),
        "ids": ids,
    }
    for name, array in values.items():
        kind = "sound" if sound else draw(st.sampled_from([*["sound"] * 9, "poked", "poked", "distorted", "junk"]))
        dtype = {"codes": "u1", "ids": draw(st.sampled_from(INTEGERS))}.get(name) or draw(st.sampled_from(FLOATS))
        if kind == "poked" and array.size and array.dtype.kind == "f":
            array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(SPECIAL))
        if kind == "distorted" and name != "ids":
            values[name] = draw(distorted(array))
        elif kind == "junk":
            values[name] = draw(junk())
        elif kind != "sound" and name == "ids":
            values[name] = draw(wanted_ids())
        else:
            if sound and name == "features" and np.abs(array).max(initial=0) > 60_000:
                dtype = "f8"
            values[name] = draw(st.sampled_from(list(LAYOUTS.values())))(cast(array, dtype))
    if draw(st.booleans()):
        values["uris"] = [None] * rows if sound else draw(uris_of(rows))
    return values


# assertions


def attempt(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or the semcut error that it raises, whose message must be one line."""
    try:
        return call()
    except SemcutError as error:
        text = str(error)
        assert text.strip() == text
        assert text
        assert "\n" not in text
        return error


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    array = np.asarray(array)
    return array.dtype.str, array.shape, array.tobytes()


def assert_sound(batch: Encodings) -> None:
    """Assert the invariants that the module of `Encodings` states."""
    rows = len(batch)
    for name, dtype in NAMES.items():
        array = getattr(batch, name)
        if array is not None:
            assert type(array) is np.ndarray
            assert array.dtype == dtype
            assert array.dtype.isnative
            assert array.flags.c_contiguous
            assert array.flags.aligned
            assert array.ndim == (1 if name == "ids" else 2)
            assert len(array) == rows
    assert np.isfinite(batch.probabilities).all()
    assert np.isfinite(batch.features).all()
    assert (batch.probabilities >= 0).all()
    assert (np.abs(batch.probabilities.sum(axis=1, dtype=np.float64) - 1) <= 1e-3).all()
    assert batch.ids is None or (batch.ids >= 0).all()
    assert batch.uris is None or len(batch.uris) == rows
    assert all(uri is None or type(uri) is str for uri in batch.uris or [])


def assert_holds(batch: Encodings, values: dict[str, Any]) -> None:
    """Assert that a batch has these values, as numpy converts them."""
    for name, dtype in NAMES.items():
        value = values.get(name)
        if value is None:
            assert getattr(batch, name) is None
            continue
        with np.errstate(all="ignore"):
            assert bits(getattr(batch, name)) == bits(np.asarray(value).astype(dtype))
        if name == "ids":
            assert batch.ids.tolist() == np.asarray(value).tolist()
    uris = values.get("uris")
    assert (batch.uris is None) == (uris is None)
    assert list(batch.uris or []) == ([] if uris is None else list(uris))


@FUZZ
@given(columns())
def test_a_batch_is_what_was_given_or_is_refused(values):
    before = {name: bits(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    batch = attempt(lambda: Encodings(**values))
    assert {name: bits(values[name]) for name in before} == before
    if isinstance(batch, SemcutError):
        assert isinstance(batch, InvalidEncodingsError)
    else:
        assert_sound(batch)
        assert_holds(batch, values)


@FUZZ
@given(columns(sound=True))
def test_right_values_are_accepted_in_every_type_and_layout(values):
    batch = Encodings(**values)
    assert_sound(batch)
    assert_holds(batch, values)


# changes and reads


class Pair:
    """An index, the reference index, and the expected records of both: bytes and uri of each record by id."""

    def __init__(self) -> None:
        self.indexes: list[SemanticIndex] = [FaissIndex.create(None, CONFIG), BruteForceIndex(CONFIG)]
        self.records: dict[int, tuple[Any, ...]] = {}
        self.version = self.indexes[0].version

    def do(self, call: Callable[[SemanticIndex], Any]) -> Any:
        """Call a function with both indexes, assert that the results agree, and return one of them."""
        found, expected = (attempt(lambda index=index: call(index)) for index in self.indexes)
        assert type(found) is type(expected)
        if isinstance(found, SemcutError):
            assert str(found) == str(expected)
        return found

    def assert_as_it_should_be(self) -> None:
        numbers = sorted(self.records)
        for index in self.indexes:
            assert len(index) == len(numbers)
            assert sorted(index.ids().tolist()) == numbers
            assert index.next_id() == max(numbers, default=-1) + 1
            assert held(index.get(numbers)) == self.records
        assert self.indexes[0].version == self.version

    def answers(self, queries: Encodings) -> list[SearchResult]:
        """Search both indexes without a shortlist, assert that the results agree, and return them."""
        results = []
        for cutoff in (0.0, 0.3):
            with threads(1):
                found, expected = (index.search(queries, k=9, cutoff=cutoff, shortlist=None) for index in self.indexes)
            assert_same(found, expected)
            results.append(found)
        return results


def held(batch: Encodings) -> dict[int, tuple[Any, ...]]:
    uris = batch.uris if batch.uris is not None else [None] * len(batch)
    rows = zip(batch.ids.tolist(), batch.probabilities, batch.codes, batch.features, uris, strict=True)
    return {number: (p.tobytes(), code.tobytes(), g.tobytes(), uri) for number, p, code, g, uri in rows}


def numbers_in(ids: Any) -> list[int] | None:
    """Return the ids that a caller has passed, None if they are not integers."""
    try:
        array = np.atleast_1d(np.asarray(ids))
    except ValueError:
        return None
    return array.tolist() if array.ndim == 1 and (not array.size or array.dtype.kind in "iu") else None


def change(pair: Pair, name: str, given: Any) -> None:
    """Add or upsert in both indexes, and update the expected records."""
    batch = attempt(lambda: Encodings(**given))
    refused = isinstance(batch, SemcutError)
    done = pair.do(lambda index: getattr(index, name)(given if refused else batch))
    if refused:
        assert isinstance(done, InvalidEncodingsError)
        return
    widths = (batch.probabilities.shape[1], batch.codes.shape[1] * 8, batch.features.shape[1])
    possible = widths == (CONFIG.classes, CONFIG.bits, CONFIG.dim) and batch.ids is not None
    possible = possible and len(set(batch.ids.tolist())) == len(batch)
    possible = possible and (name == "upsert" or not set(batch.ids.tolist()) & set(pair.records))
    assert isinstance(done, SemcutError) is not possible
    if possible:
        pair.records.update(held(batch))
        pair.version += len(batch) > 0


def remove(pair: Pair, ids: Any) -> None:
    numbers = numbers_in(ids)
    possible = numbers is not None and set(numbers) <= set(pair.records)
    assert isinstance(pair.do(lambda index: index.remove(ids)), SemcutError) is not possible
    if possible:
        pair.records = {number: record for number, record in pair.records.items() if number not in numbers}
        pair.version += len(numbers) > 0


def ask(pair: Pair, name: str, ids: Any) -> None:
    """Call get, uris or contains, and compare with the expected records."""
    numbers = numbers_in(ids)
    found = pair.do(lambda index: getattr(index, name)(ids))
    if name == "contains" and not isinstance(found, SemcutError):
        assert found.tolist() == [number in pair.records for number in numbers]
        return
    if name == "contains":
        assert numbers is None or max(numbers) > LARGEST
        return
    possible = numbers is not None and set(numbers) <= set(pair.records)
    assert isinstance(found, SemcutError) is not possible
    if possible and name == "uris":
        assert found == [pair.records[number][3] for number in numbers]
    elif possible:
        assert found.ids.tolist() == numbers
        assert held(found) == {number: pair.records[number] for number in numbers}


def iterate(pair: Pair, size: Any) -> None:
    found = pair.do(lambda index: list(index.iterate(size)))
    possible = size is None or (isinstance(size, int | np.integer) and not isinstance(size, bool) and size >= 1)
    assert isinstance(found, SemcutError) is not possible
    if possible:
        assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
        assert [number for batch in found for number in batch.ids.tolist()] == sorted(pair.records)


@st.composite
def actions(draw: st.DrawFn) -> tuple[str, Any]:
    name = draw(st.sampled_from(["add", "upsert", "remove", "get", "uris", "contains", "iterate"]))
    if name in ("add", "upsert"):
        return name, draw(st.one_of(columns(sound=True), columns()))
    if name == "iterate":
        sizes = [1, 2, np.int8(3), np.uint64(2**64 - 1), True, np.float32(2), np.array(2), np.True_]
        return name, draw(st.one_of(junk(), st.sampled_from(sizes)))
    return name, draw(wanted_ids())


@FUZZ
@given(columns(sound=True), st.lists(actions(), min_size=1, max_size=3))
def test_an_index_makes_a_change_or_refuses_it_and_is_unchanged(first, story):
    pair = Pair()
    change(pair, "add", first)
    queries = Encodings(**first)
    answers = pair.answers(queries)
    for name, argument in story:
        before, version = answers, pair.version
        if name in ("add", "upsert"):
            change(pair, name, argument)
        elif name == "remove":
            remove(pair, argument)
        elif name == "iterate":
            iterate(pair, argument)
        else:
            ask(pair, name, argument)
        pair.assert_as_it_should_be()
        answers = pair.answers(queries)
        if pair.version == version:
            for found, expected in zip(answers, before, strict=True):
                assert_same(found, expected)


# searches


def world(normalised: bool) -> World:
    rng = np.random.default_rng(11)
    return World(
        config=CONFIG,
        batches=[generate.encodings(rng, CONFIG, 24, normalised=normalised)],
        queries=generate.encodings(rng, CONFIG, 3, normalised=normalised, records=False),
        normalised=normalised,
        seed=11,
    )


WORLDS = {normalised: world(normalised) for normalised in (True, False)}

SEARCHED = {
    normalised: (generate.filled(FaissIndex.create(None, CONFIG), world.batches), world.brute_force())
    for normalised, world in WORLDS.items()
}

TOO_WIDE = generate.encodings(
    np.random.default_rng(0), CONFIG.model_copy(update={"dim": CONFIG.dim + 1}), 2, normalised=True, records=False
)


def parameters() -> st.SearchStrategy[Any]:
    """Draw any value, most often one that is almost valid."""
    near = [0, 1, 2, 5, 24, 25, 100, -1, 5.0, 5.5, -0.0, 0.2, 0.5, 5e-324, 1e-50, 1 - 2**-53, 1.0]
    texts = ["5", "0.2", " 7", "5_0", "nan", "1e400", "9" * 5000, b"5"]
    texts += ["distance", "fused", "Fused", np.str_("fused"), b"distance"]
    numpy = [
        *(dtype(5) for dtype in (np.int8, np.uint64, np.float16, np.longdouble, np.bool_)),
        *(dtype("0.2") for dtype in (np.float32, np.float64, np.longdouble)),
        *(np.uint64(2**64 - 1), np.float32("nan"), np.longdouble("1e4000"), np.datetime64("NaT"), np.void(b"ab")),
        *(np.array(3), np.array(0.2), np.array([3]), np.array([1, 2]), np.array("fused"), np.array(None)),
    ]
    exact = [Decimal(5), Decimal("0.2"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e400")]
    exact += [Fraction(5), Fraction(1, 5), Fraction(1, 3), Fraction(10**400)]
    sampled = st.sampled_from([*near, *near, *texts, *numpy, *exact])
    within = st.floats(0, 1, allow_subnormal=True)
    return st.one_of(sampled, sampled, within, st.integers(1, 40), st.decimals(), st.fractions(), junk())


def affordable(value: Any) -> bool:
    """Return whether this number of results is refused or takes little memory."""
    try:
        return not 10**4 < float(value) <= 10**8
    except (TypeError, ValueError, OverflowError, Warning):
        return True


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    options = {
        "k": draw(st.one_of(st.integers(1, 30), parameters().filter(affordable))),
        "cutoff": draw(st.one_of(st.sampled_from([0.0, 0.2, 0.5]), parameters())),
        "shortlist": draw(st.one_of(st.none(), st.integers(1, 40), parameters())),
        "ranking": draw(st.one_of(st.sampled_from(["distance", "fused"]), parameters())),
    }
    kept = draw(st.sets(st.sampled_from([*options])))
    return {name: value for name, value in options.items() if name in kept}


def assert_taken(given: Any, taken: Any) -> None:
    """Assert that a parameter has the given value, read as a number if it is one."""
    if taken is None or isinstance(taken, str) or (isinstance(taken, int) and isinstance(given, int | Fraction)):
        assert given == taken
    elif taken > 10**300:
        assert int(given) == taken
    else:
        assert float(given) == float(taken)


@FUZZ
@given(searches(), st.booleans(), st.sampled_from(["all", "all", "all", "no", "too wide", "not"]))
def test_a_search_gives_what_the_equations_do_or_is_refused(options, normalised, queried):
    world, (index, reference) = WORLDS[normalised], SEARCHED[normalised]
    others = {"no": world.queries[:0], "too wide": TOO_WIDE, "not": options}
    queries = others.get(queried, world.queries)
    params = attempt(lambda: SearchParams(**options))
    with threads(1):
        found, expected = (attempt(lambda one=one: one.search(queries, **options)) for one in (index, reference))
    assert type(found) is type(expected)
    if isinstance(params, SemcutError):
        assert isinstance(params, InvalidParameterError)
        assert str(found) == str(expected)
        return
    for name, value in options.items():
        assert_taken(value, getattr(params, name))
    assert type(params.k) is int
    assert params.k >= 1
    assert 0 <= params.cutoff < 1
    assert params.shortlist is None or params.shortlist >= params.k
    if isinstance(found, SemcutError):
        assert str(found) == str(expected)
        assert queried in ("too wide", "not") or len(queries) * params.k > 10**8 or params.ranking == "fused"
        return
    assert found.ids.shape == (len(queries), params.k)
    if params.shortlist is None or params.shortlist >= len(index):
        assert_same(found, expected)
    elif queried == "all":
        assert_shortlist(
            found, world, k=params.k, cutoff=params.cutoff, shortlist=params.shortlist, ranking=params.ranking
        )
