"""Groups by names, and the records that a ground truth names: what is missing is said, half a set works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.connector.ground_truth.judged_queries import ALL, GroundTruth, Judgement, Query
from semcut.connector.ground_truth.judged_records import find_judged_records
from semcut.connector.ground_truth.read_truth import read_ground_truth
from semcut.indexes import DataError, InvalidParameterError


def files(*names: str) -> list[str]:
    return [f"/photos/{name}" for name in names]


def test_holidays_are_grouped_by_their_first_four_digits() -> None:
    truth = read_ground_truth(
        "holidays", None, files("100000.jpg", "100001.jpg", "100002.jpg", "100100.jpg", "100201.jpg", "readme.txt")
    )
    assert truth.queries == (Query("100000", "100000"),)
    assert truth.levels[ALL] == (Judgement(frozenset({"100001", "100002"}), frozenset({"100000"})),)
    assert dict(truth.left_out) == {
        "group 1001": "it has not an image beside its query",
        "group 1002": "it has not its query 100200",
    }
    assert (truth.trapezoid, truth.first_four, truth.published) == (True, False, (500, 1491))
    with pytest.raises(DataError, match="no images are named as those of holidays"):
        read_ground_truth("holidays", None, files("10000.jpg", "100100.jpg"))


def test_ukbench_has_four_images_of_an_object() -> None:
    names = [f"ukbench{number:05}.jpg" for number in (0, 1, 2, 3, 4, 5, 6)]
    truth = read_ground_truth("ukbench", None, files(*names, "ukbench1.jpg"))
    first = [f"ukbench{number:05}" for number in range(4)]
    assert truth.queries == tuple(Query(name, name) for name in first)
    assert truth.levels[ALL] == (Judgement(frozenset(first), frozenset()),) * 4
    assert dict(truth.left_out) == {"group 1": "it has 3 of its 4 images"}
    assert (truth.trapezoid, truth.first_four, truth.published) == (False, True, (10200, 10200))
    with pytest.raises(DataError, match="no images are named as those of ukbench"):
        read_ground_truth("ukbench", None, files("ukbench00000.jpg"))


def test_records_are_found_by_the_names_of_their_files() -> None:
    truth = GroundTruth(
        "oxford5k",
        (Query("one", "a"), Query("two", "b", (0, 0, 9, 9)), Query("none", "z"), Query("lost", "a")),
        {
            ALL: (
                Judgement(frozenset("abx"), frozenset("c")), Judgement(frozenset("b"), frozenset()),
                Judgement(frozenset("a"), frozenset()), Judgement(frozenset("x"), frozenset()),
            )
        },
        published=(4, 9),
        left_out=(("before", "reason"),),
    )  # fmt: skip
    found = find_judged_records(
        truth, "/photos", files("1/a.jpg", "2/b.png", "c.jpg", "d.jpg", "d.png"), np.array([7, 5, 9, -1, 3])
    )
    assert found.names == ("one", "two")
    assert found.files == ("/photos/1/a.jpg", "/photos/2/b.png")
    assert found.boxes == (None, (0, 0, 9, 9))
    assert [(one.relevant.tolist(), one.junk.tolist()) for one in found.levels[ALL]] == [([5, 7], [9]), ([5], [])]
    assert dict(found.left_out) == {
        "before": "reason",
        "none": "there is no image of the query",
        "lost": "no image that is relevant for it has a record",
    }
    assert not found.coverage.whole
    assert found.coverage.sentence("oxford5k") == (
        "a part of oxford5k: 2 of 4 queries, 3 of 9 images; 1 named images have no record, such as x; do not compare "
        "these figures with those of the whole set"
    )


def test_a_whole_set_is_called_so() -> None:
    truth = GroundTruth(
        "roxford5k", (Query("q", "q"),), {ALL: (Judgement(frozenset("a"), frozenset("q")),)}, published=(1, 1),
        names=frozenset("a"),
    )  # fmt: skip
    for query in (-1, 4):  # the image of a query that is not to be found needs no record
        found = find_judged_records(truth, "/photos", files("a.jpg", "q.jpg"), np.array([0, query]))
        assert found.coverage.whole
        assert found.coverage.sentence("roxford5k") == "roxford5k: 1 queries, 1 images"
    less = found.without_unreadable([], [("/photos/q.jpg", "broken")])
    assert (less.names, less.levels, less.coverage.whole) == ((), {ALL: ()}, False)


def test_holidays_without_records_of_queries_are_whole() -> None:
    names = files("100000.jpg", "100001.jpg")
    truth = read_ground_truth("holidays", None, names)
    found = find_judged_records(truth, "/photos", names, np.array([-1, 0]))
    assert (found.coverage.images, found.coverage.missing) == (2, 0)


def test_a_table_names_images_below_the_folder_or_by_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        "query,relevant\na/1.jpg,/photos/b/1.jpg;b/2.jpg\n/photos/b/1.jpg,a/1.jpg;../../etc/passwd\n"
    )
    truth = read_ground_truth("csv", tmp_path / "truth.csv")
    found = find_judged_records(truth, "/photos", files("a/1.jpg", "b/1.jpg", "b/2.jpg"), np.array([3, 4, 5]))
    assert found.files == ("/photos/a/1.jpg", "/photos/b/1.jpg")
    assert [(one.relevant.tolist(), one.junk.tolist()) for one in found.levels[ALL]] == [([4, 5], [3]), ([3], [4])]
    assert found.coverage.sentence("csv").startswith(
        "a part of csv: 2 queries, 3 images; 1 named images have no record"
    )


def test_names_that_say_nothing_are_refused() -> None:
    names = files("a/100000.jpg", "b/100000.png", "100001.jpg")
    truth = read_ground_truth("holidays", None, names)
    with pytest.raises(DataError, match=r"a/100000.jpg and /photos/b/100000.png have the same name '100000'"):
        find_judged_records(truth, "/photos", names, np.arange(3))
    with pytest.raises(DataError, match=r"none of the 1 queries of holidays can be used, the first is 100000: there"):
        find_judged_records(truth, "/photos", files("x.jpg"), np.arange(1))
    with pytest.raises(InvalidParameterError, match="truth = None"):
        find_judged_records(None, "/photos", names, np.arange(3))  # type: ignore[arg-type]
