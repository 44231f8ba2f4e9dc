"""Results that come from someone else: what they say is shown as text, or refused by one error."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from semcut.connector.benchmark.measure import stored_results
from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts
from semcut.connector.benchmark.report.html_parts import Html, bold, table
from semcut.connector.benchmark.report.summarise import run_figures
from semcut.connector.benchmark.report.write_report import write_report
from semcut.indexes.errors import DataError

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def received(out, tmp_path):
    """Give a run with two methods of one data set, one of them semcut's, without plots."""
    place = tmp_path / "received"
    shutil.copytree(out / "raw" / "small", place / "raw" / "small")
    shutil.copy(out / "plan.json", place)
    facts = json.loads((place / "raw" / "small" / "dataset.json").read_text())
    semcut = next(method for method in facts["methods"] if "cutoff" in method["parameters"])
    facts["methods"] = [semcut, next(method for method in facts["methods"] if method["name"] == "IndexFlatL2")]
    (place / "raw" / "small" / "dataset.json").write_text(json.dumps(facts))
    return place


def change_facts(received, *path, value):
    """Change a value in dataset.json."""
    file = received / "raw" / "small" / "dataset.json"
    facts = place = json.loads(file.read_text())
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    file.write_text(json.dumps(facts))


def change_arrays(received, name, **arrays):
    """Change arrays in a file; None removes one."""
    file = received / "raw" / "small" / name
    with np.load(file) as stored:
        found = {**stored, **arrays}
    np.savez(file, **{key: array for key, array in found.items() if array is not None})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("about", "name"), "W" * 5_000_000),
        (("about", "source"), "W" * 1000),
        (("about", "records"), 0),
        (("about", "records"), 10**400),
        (("methods", 1, "name"), "W" * 3000),
        (("methods", 1, "family"), "W" * 3000),
        (("methods", 1, "family"), "\ud800"),
        (("methods", 1, "file"), "/etc/passwd"),
        (("methods", 1, "file"), "../../../other.npz"),
        (("methods", 1, "structure"), "none"),
        (("methods", 1, "parameters"), {"x": []}),
        (("methods", 1, "name"), 3),
        (("methods",), []),
        (("machine", "processor"), "W" * 1000),
        (("machine", "load_average"), []),
        (("machine", "more"), 3),
        (("plan", "batches"), []),
        (("plan", "k"), 10**6),
        (("plan", "queries"), 10**9),
        (("grid",), SCRIPT),
        (("cells",), "many"),
        (("started",), float("nan")),
        (("structures", "IndexFlatL2", "build_seconds"), -1),
        (("structures", "IndexFlatL2", "build_seconds"), 1e-320),
    ],
)
def test_a_description_that_no_run_writes_is_one_error(received, path, value):
    change_facts(received, *path, value=value)
    with pytest.raises(DataError, match="does not describe the results of a benchmark") as error:
        run_figures(received)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("name", "value"),
    [("shortlist", SCRIPT), ("shortlist", 0), ("cutoff", -0.1), ("cutoff", SCRIPT), ("other", 3)],
)
def test_parameters_that_no_search_has_are_one_error(received, name, value):
    change_facts(received, "methods", 0, "parameters", name, value=value)
    with pytest.raises(DataError, match="are no parameters of a search"):
        run_figures(received)


def of_semcut(received):
    return json.loads((received / "raw" / "small" / "dataset.json").read_text())["methods"][0]["file"]


@pytest.mark.parametrize(
    ("file", "arrays", "message"),
    [
        ("IndexFlatL2.npz", {"labels": np.zeros((128, 0), np.int32)}, "expected int32 of shape"),
        ("IndexFlatL2.npz", {"labels": np.zeros((128, 10), np.int64)}, "expected int32 of shape"),
        ("IndexFlatL2.npz", {"labels": None}, "no array 'labels'"),
        ("IndexFlatL2.npz", {"labels": np.zeros((127, 10), np.int32)}, "different lengths"),
        ("IndexFlatL2.npz", {"seconds_1": np.zeros(9)}, "'seconds_1' that cannot be right"),
        ("IndexFlatL2.npz", {"seconds_1": np.full(9, 1e-320)}, "'seconds_1' that cannot be right"),
        ("IndexFlatL2.npz", {"seconds_1": np.full(9, 1e300)}, "'seconds_1' that cannot be right"),
        ("IndexFlatL2.npz", {"seconds_1": np.ones(101)}, "expected float64 of shape"),
        ("IndexFlatL2.npz", {"seconds_1": np.zeros(0)}, "expected float64 of shape"),
        ("IndexFlatL2.npz", {"seconds_1": np.full(9, np.nan)}, "'seconds_1' that cannot be right"),
        ("IndexFlatL2.npz", {"size_1": np.asarray(0)}, "'size_1' that cannot be right"),
        ("IndexFlatL2.npz", {"seconds_7": np.ones(9)}, "which semcut does not write there"),
        ("IndexFlatL2.npz", {"average_precision": np.full(9, 7.0)}, "'average_precision' that cannot be right"),
        ("semcut", {"steps_cells": None}, "no array 'steps_cells'"),
        ("semcut", {"steps_cells": np.full(128, -1)}, "'steps_cells' that cannot be right"),
        ("queries.npz", {"labels": np.full(128, 2**30, np.int32)}, "'labels' that cannot be right"),
        ("queries.npz", {"labels": np.full(128, -1, np.int32)}, "'labels' that cannot be right"),
        ("queries.npz", {"per_label": np.full(12, 2**40)}, "'per_label' that cannot be right"),
        ("queries.npz", {"per_label": np.full(2**18, 1)}, "expected int64 of shape"),
        ("queries.npz", {"pruned 0.2 distance": None, "pruned 0.0 distance": None}, "what pruning skips"),
        ("queries.npz", {f"pruned {n}": np.zeros((128, 10), bool) for n in range(1900)}, "have more than 2,379,776"),
        ("probes.npz", {"x": np.asarray([np.inf])}, "'x' that cannot be right"),
        ("probes.npz", {"x": np.asarray([-1.0])}, "'x' that cannot be right"),
        ("truth.npz", {"distances": np.zeros((128, 9), np.float32)}, "expected float32 of shape"),
    ],
)
def test_arrays_that_no_run_writes_are_one_error(received, file, arrays, message):
    change_arrays(received, of_semcut(received) if file == "semcut" else file, **arrays)
    with pytest.raises(DataError, match=message):
        run_figures(received)


def test_answers_at_the_cutoff_of_every_search_are_needed(received):
    change_facts(received, "methods", 0, "parameters", "cutoff", value=0.123)
    with pytest.raises(DataError, match=r"has no exact answers at cutoff 0\.123"):
        run_figures(received)


def test_texts_of_a_received_run_are_text_in_page_and_plots(received):
    """Markup, and what matplotlib would read as a formula."""
    formula = r"$\frac{$"
    for place in (("about", "name"), ("about", "source"), ("methods", 1, "family"), ("machine", "processor")):
        change_facts(received, *place, value=SCRIPT + formula)
    change_facts(received, "methods", 1, "parameters", value={SCRIPT: SCRIPT})
    change_facts(received, "machine", "versions", value={SCRIPT: SCRIPT})
    write_report(received, SCRIPT)
    page = (received / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert (received / "plots" / "small-quality.png").stat().st_size > 10_000


def test_a_report_without_any_right_record_is_written(received):
    change_arrays(received, "queries.npz", per_label=np.zeros(12, np.int64))
    (figures,) = write_report(received).datasets
    assert [method.map for method in figures.methods] == [None, None]


def test_results_of_one_method_are_read_at_a_time(received, monkeypatch):
    facts = DatasetFacts.read(received / "raw" / "small")
    read = stored_results.load_method(received / "raw" / "small", facts, facts.methods[1], 128)
    assert {"ids", "distances", "relevance", "labels", "seconds_1", "size_1"} <= set(read)
    figures = run_figures(received)
    assert all(method.complete for method in figures.datasets[0].methods)


def test_cells_of_a_table_are_text_unless_they_are_html():
    written = table(["<h>"], [["<b>"], [bold("<i>")], [Html("<em>x</em>")]])
    assert '<th class="l">&lt;h&gt;</th>' in written
    for cell in ("&lt;b&gt;", "<b>&lt;i&gt;</b>", "<em>x</em>"):
        assert f'<td class="l">{cell}</td>' in written
