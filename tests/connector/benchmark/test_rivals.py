"""Test the comparison of semcut with the best setting of every other index: on known figures, and in a report."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape

import pytest

from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.connector.benchmark.report.figures import BatchFigures, SemcutFigures
from semcut.connector.benchmark.report.html_page import page
from semcut.connector.benchmark.report.rivals import chosen, rivals, sentences
from semcut.connector.benchmark.report.summarise import run_figures
from tests.connector.benchmark.test_check_targets import figures, method

GRAPH = "IndexHNSWFlat joined"


def other(name, family, speed, p50, quality, *, build=1.0, memory=1, queries=1024, **parameters):
    found = method(name, family, speed, p50, quality, parameters=parameters)
    return replace(found, build_seconds=build, memory_bytes=memory, queries=queries)


@pytest.fixture
def dataset():
    """Give a data set with semcut at 1000 queries/s, 0.1 ms and a mAP of 0.75, built in 4 s in 2 GB."""
    semcut = method(
        "semcut (compiled)", "semcut", 1000, 0.1, 0.75, semcut=SemcutFigures(SearchPoint(), None, 0, {}, 0.0, None)
    )
    return replace(
        figures(),
        methods=(
            replace(semcut, build_seconds=4.0, memory_bytes=2_000_000_000),
            other(f"{GRAPH}, efSearch 8", GRAPH, 3000, 0.02, 0.74, build=200, memory=8_000_000_000, efSearch=8),
            other(f"{GRAPH}, efSearch 16", GRAPH, 1500, 0.06, 0.76, build=200, memory=8_000_000_000, efSearch=16),
            other(f"{GRAPH}, efSearch 64", GRAPH, 1400, 0.05, 0.77, build=200, memory=8_000_000_000, efSearch=64),
            other("lists, 1", "lists", 2000, 0.2, 0.60, build=2, memory=500_000_000, lists=1),
            other("lists, 3", "lists", 700, 0.3, 0.70, build=2, memory=500_000_000, lists=3),
            other("IndexBinaryFlat + re-rank of 100", "IndexBinaryFlat + re-rank", 50, 1, 0.8, memory=8_000_000),
            other("IndexFlatL2", "IndexFlatL2", 10, 9, 0.8, queries=60),
        ),
    )


def test_the_best_setting_is_the_fastest_of_at_least_the_same_map_or_else_the_nearest_below(dataset):
    (semcut,) = chosen(dataset)
    graph, flat, lists = rivals(dataset, semcut)
    assert (graph.family, graph.as_good) == (GRAPH, True)
    assert (graph.batch.name, graph.single.name) == (f"{GRAPH}, efSearch 16", f"{GRAPH}, efSearch 64")
    assert (graph.faster_in_batches, graph.faster_alone) == pytest.approx((1.5, 2.0))
    assert (graph.faster_built, graph.smaller) == pytest.approx((0.02, 0.25))
    assert (lists.as_good, lists.batch.name, lists.single.name) == (False, "lists, 3", "lists, 3")
    assert (lists.faster_built, lists.smaller) == pytest.approx((2, 4))
    assert flat.smaller == pytest.approx(2_000_000_000 / (8_000_000 + 1_000_000 * 128 * 4))


def test_a_sentence_says_what_is_faster_and_by_how_much(dataset):
    lines = sentences(dataset, chosen(dataset)[0])
    assert lines == [
        "IndexHNSWFlat joined is faster than semcut by a factor of 1.50 in batches of 1024 (efSearch 16: 1,500 and "
        "1,000 queries/s, mAP 0.7600 and 0.7500); and is faster than semcut by a factor of 2.00 for one query "
        "(efSearch 64: 0.050 and 0.100 ms, mAP 0.7700 and 0.7500).",
        "IndexBinaryFlat + re-rank is built faster by a factor of 4.00; and takes less memory by a factor of 3.85.",
        "lists, with a lower mAP than semcut's in all of its settings, is built faster by a factor of 2.00; and takes "
        "less memory by a factor of 4.00.",
        "IndexFlatL2: not compared, since all queries would have taken too long.",
        "usearch was not measured, since it was not installed.",
        "rabitqlib was not measured, since it was not installed.",
    ]
    assert sentences(dataset, chosen(dataset)[0], below=False) == [*lines[:2], *lines[3:]]


def test_it_is_said_if_no_index_of_the_same_map_is_faster(dataset):
    slow = replace(dataset, methods=tuple(one for one in dataset.methods if one.family != GRAPH))
    assert sentences(slow, chosen(slow)[0])[0] == (
        "No other index that was measured is faster than semcut (compiled) with at least its mAP."
    )
    alone = replace(dataset, methods=dataset.methods[:1])
    assert rivals(alone, chosen(alone)[0]) == []


def test_a_library_that_was_installed_and_not_asked_for_is_not_called_missing(dataset):
    machine = replace(dataset.machine, versions={"usearch": "2.26.6"})
    lines = sentences(replace(dataset, machine=machine), chosen(dataset)[0])
    assert "usearch was not measured." in lines


def test_figures_too_small_to_measure_have_no_ratio(dataset):
    semcut, *others = dataset.methods
    unknown = replace(dataset, methods=(semcut, *(replace(one, memory_bytes=-4096) for one in others)))
    assert [rival.smaller for rival in rivals(unknown, semcut) if "re-rank" not in rival.family] == [None, None]


def test_searches_without_a_known_quality_or_of_other_settings_are_not_compared(dataset):
    semcut, *others = dataset.methods
    assert chosen(replace(dataset, methods=tuple(others))) == []
    assert chosen(replace(dataset, methods=(replace(semcut, map=None), *others))) == []
    point = SemcutFigures(SearchPoint(cutoff=0.5), None, 0, {}, 0.0, None)
    assert chosen(replace(dataset, methods=(replace(semcut, semcut=point), *others))) == []


def test_the_page_shows_the_best_setting_of_every_family_for_both_rankings(out):
    run = run_figures(out)
    small = next(one for one in run.datasets if one.name == "small")
    found = chosen(small)
    assert [one.semcut.point.ranking for one in found] == ["distance", "fused"]
    text = page(run, {})
    section = text[text.index("Where other indexes are better") : text.index("<h3>Every method")]
    for semcut in found:
        assert f"<h4>{semcut.name}</h4>" in section
        for line in sentences(small, semcut):
            assert escape(line) in section
    for family in {one.family for one in small.methods if one.semcut is None and one.complete}:
        assert f'<td class="l">{family}</td>' in section
    assert "IndexHNSWFlat joined" in section
    assert "lists by argmax class" in section
    assert len(re.findall(r"<table>", section)) == 2


def test_kinds_are_what_a_method_searches():
    def kind(family):
        found = method(family, family, 1, 1, 1)
        assert isinstance(found.batches[1], BatchFigures)
        return found.kind

    assert kind("IndexHNSWFlat joined, projected") == kind("lists by argmax class") == "features + classes"
    assert kind("IndexHNSWFlat") == kind("usearch i8 l2sq") == kind("rabitqlib IVF raw") == "features"
    assert kind("usearch b1 hamming") == kind("IndexBinaryFlat") == "codes"
    assert kind("usearch b1 hamming + re-rank") == kind("IndexBinaryFlat + re-rank") == "codes + re-rank"
