from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semcut.connector.benchmark.measure import ground_truth
from semcut.connector.benchmark.measure.ground_truth import Exact, Truth, WrongAnswerError, find_truth
from semcut.indexes import BruteForceIndex, Encodings
from semcut.indexes.errors import DataError
from semcut.indexes.scoring.equations import distance

POINTS = [(0.0, "distance"), (0.2, "distance"), (0.2, "fused"), (0.5, "fused")]
FIELDS = ("ids", "distances", "relevance", "scores", "relevant")


@pytest.fixture
def queries(dataset) -> Encodings:
    return dataset.queries.get(np.arange(50))


def find(dataset, data, queries, points=POINTS, seconds=60.0):
    return find_truth(dataset.index, data, queries, points, k=7, seconds=seconds)


def test_answers_are_those_of_brute_force(dataset, data, queries):
    found = find(dataset, data, queries)
    brute = BruteForceIndex(dataset.index.config)
    brute.add(dataset.index.get(np.arange(len(dataset.index))))
    for cutoff, ranking in POINTS:
        expected = brute.search(queries, k=7, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False)
        exact = found.exact[cutoff, ranking]
        for name in ("ids", "distances", "relevance", "scores"):
            np.testing.assert_array_equal(getattr(exact, name), getattr(expected, name))
        np.testing.assert_array_equal(exact.relevant, len(dataset.index) - expected.cut_off)


def test_nearest_features_are_exact(dataset, data, queries):
    found = find(dataset, data, queries, points=[])
    every = np.stack([distance(query[None], data.features) for query in queries.features])
    np.testing.assert_array_equal(found.distances, np.sort(every, axis=1)[:, :7])
    np.testing.assert_array_equal(np.take_along_axis(every, found.ids, 1), found.distances)


def test_fewer_records_than_k_leave_places_empty():
    ids, distances = ground_truth.nearest(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), 5)
    assert (ids[:, 3:] == -1).all()
    assert np.isinf(distances[:, 3:]).all()
    assert (distances[:, 0] == 0).all()


def test_little_time_gives_answers_to_the_first_queries_only(dataset, data, queries):
    few = find(dataset, data, queries, seconds=1e-9)
    every = find(dataset, data, queries)
    for point in POINTS:
        count = len(few.exact[point].ids)
        assert 0 < count < len(queries)
        np.testing.assert_array_equal(few.exact[point].ids, every.exact[point].ids[:count])


def test_answers_are_stored_and_read(dataset, data, queries, tmp_path):
    path = tmp_path / "truth.npz"
    found = find(dataset, data, queries, seconds=1e-9)
    found.save(path)
    read = Truth.load(path, len(queries), 7)
    np.testing.assert_array_equal(read.ids, found.ids)
    np.testing.assert_array_equal(read.distances, found.distances)
    assert set(read.exact) == set(POINTS)
    for point in POINTS:
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(read.exact[point], name), getattr(found.exact[point], name))
    for queries_and_k in ((51, 7), (49, 7), (50, 8)):
        with pytest.raises(DataError, match=r"cannot be read \(its array"):
            Truth.load(path, *queries_and_k)


def spoil(name, value):
    """Return a change of stored arrays: another array of a name, or none."""
    return lambda arrays: {key: array for key, array in (arrays | {name: value}).items() if array is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("ids", None), "no array 'ids'"),
        (spoil("ids", np.zeros((2, 7), np.int32)), "expected int64 of shape"),
        (spoil("0.2 fused ids", np.zeros((1 << 21, 7), np.int64)), "expected int64 of shape"),
        (spoil("0.2 fused ids", np.zeros((1, 7), np.int64)), "different lengths"),
        (spoil("0.2 fused ids", None), "answers that semcut does not write"),
        (spoil("0.2 best ids", np.zeros((1, 7), np.int64)), "answers that semcut does not write"),
        (spoil("nan fused ids", np.zeros((1, 7), np.int64)), "answers that semcut does not write"),
        (spoil("more", np.zeros(3)), "array 'more', which semcut does not write"),
    ],
)
def test_answers_that_semcut_does_not_write_are_one_error(tmp_path, change, message):
    path, rows = tmp_path / "truth.npz", np.zeros((2, 7), np.float32)
    exact = Exact(rows.astype(np.int64), rows, rows, rows, np.zeros(2, np.int64))
    Truth(exact.ids, rows, {(0.2, "fused"): exact}).save(path)
    with np.load(path) as arrays:
        changed = change(dict(arrays))
    np.savez_compressed(path, **changed)
    with pytest.raises(DataError, match=message):
        Truth.load(path, 2, 7)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half of an archive", b"text"])
def test_a_missing_or_damaged_file_of_answers_is_one_error(tmp_path, content):
    path = tmp_path / "truth.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"truth\.npz cannot be read"):
        Truth.load(path, 2, 7)


@pytest.mark.parametrize("point", POINTS)
def test_a_wrong_answer_ends_the_run(dataset, data, queries, point):
    found = find(dataset, data, queries)
    ground_truth.check(dataset.index, queries, found, 7)
    exact = found.exact[point]
    query = int(np.flatnonzero(exact.ids[: ground_truth.CHECKED, 1] >= 0)[-1])
    ids = exact.ids.copy()
    ids[query, [0, 1]] = ids[query, [1, 0]]
    spoiled = replace(found, exact={**found.exact, point: replace(exact, ids=ids)})
    with pytest.raises(WrongAnswerError, match=f"query {query} at cutoff {point[0]} by {point[1]}"):
        ground_truth.check(dataset.index, queries, spoiled, 7)
