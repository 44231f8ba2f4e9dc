"""Runs that come from someone else, and would take hours to report: few bytes that stand for many numbers."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from semcut.connector.benchmark.datasets.array_files import Array, read_arrays
from semcut.connector.benchmark.datasets.dataset_tasks import DatasetTask
from semcut.connector.benchmark.measure import run_limits
from semcut.connector.benchmark.measure.dataset_facts import MOST_METHODS, DatasetFacts
from semcut.connector.benchmark.measure.raw_results import file_name
from semcut.connector.benchmark.measure.run import run
from semcut.connector.benchmark.measure.run_plan import Plan, stored_plan
from semcut.connector.benchmark.methods.grids import structures
from semcut.connector.benchmark.report import benchmark_plots
from semcut.connector.benchmark.report.summarise import run_figures
from semcut.connector.benchmark.report.write_report import write_report
from semcut.connector.evaluation import charts
from semcut.indexes.errors import DataError
from semcut.indexes.progress import silent


@pytest.fixture
def received(out, tmp_path):
    """Give a copy of a run."""
    return shutil.copytree(out, tmp_path / "received")


def never():
    raise AssertionError("measured")


def change(received, **values):
    """Change values of the description of a data set."""
    file = received / "raw" / "small" / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def methods_of(received):
    return json.loads((received / "raw" / "small" / "dataset.json").read_text())["methods"]


@pytest.mark.parametrize("name", ["IndexFlatL2,", "indexFLATl2"])
def test_every_method_has_its_own_file(received, name):
    other = next(method for method in methods_of(received) if method["name"] == "IndexFlatL2")
    change(received, methods=[*methods_of(received), {**other, "name": name, "file": file_name(name)}])
    with pytest.raises(DataError, match=f"'IndexFlatL2' and '{name}' have the same file"):
        run_figures(received)


@pytest.mark.parametrize("grid", ["full", "quick", "defaults", "growth"])
def test_methods_that_are_measured_have_their_own_files_and_are_few(grid):
    names = [method.name for structure in structures(grid) for method in structure.methods()]
    assert len({file_name(name).casefold() for name in names}) == len(names) < MOST_METHODS // 1.5
    assert len({method.family for one in structures(grid) for method in one.methods()}) < charts.MOST_CURVES


def test_more_methods_than_a_data_set_has_are_one_error(received):
    one = methods_of(received)[0]
    more = [{**one, "name": f"m{n}", "file": file_name(f"m{n}")} for n in range(MOST_METHODS + 1)]
    change(received, methods=more)
    with pytest.raises(DataError, match=f"expected at most {MOST_METHODS} items, not {MOST_METHODS + 1}"):
        run_figures(received)


def test_results_of_another_plan_are_one_error_before_anything_is_measured(received):
    plan = stored_plan(received)
    change(received, plan=json.loads(plan.model_copy(update={"queries": 10_000, "k": 100}).model_dump_json()))
    expected = r"small was measured with k = 100, not 10; queries = 10000, not 128 as in the plan of the run: delete"
    for work in (
        lambda: run_figures(received),
        lambda: run(received, [DatasetTask("x", "quick", never)], plan, silent),
    ):
        with pytest.raises(DataError, match=expected):
            work()


def test_a_report_needs_the_plan_of_the_run(received):
    (received / "plan.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        run_figures(received)
    (received / "plan.json").unlink()
    with pytest.raises(DataError, match=r"holds no run of a benchmark, which has a plan\.json"):
        run_figures(received)


def test_a_run_has_few_data_sets(received, monkeypatch):
    monkeypatch.setattr(run_limits, "MOST_DATASETS", 3)
    assert len(run_limits.complete_results(received, stored_plan(received))) == 3
    with pytest.raises(DataError, match="more than 3 data sets"):
        run(received, [DatasetTask("x", "quick", never)], stored_plan(received), silent)
    monkeypatch.setattr(run_limits, "MOST_DATASETS", 2)
    with pytest.raises(DataError, match="more than 2 data sets"):
        write_report(received)


def test_the_numbers_of_a_run_are_counted_before_they_are_measured_or_read(received, monkeypatch, tmp_path):
    plan = Plan(threads=1, queries=10_000, k=100)
    expected = (
        r"numbers \(data sets: 1, methods of all: \d+, queries: 10,000, answers to each: 100\), expected at most 200"
    )
    with pytest.raises(DataError, match=expected):
        run(tmp_path / "new", [DatasetTask("x", "full", never)], plan, silent)
    assert not (tmp_path / "new" / "raw").exists()
    facts = DatasetFacts.read(received / "raw" / "small")
    count = (len(facts.methods) + run_limits.MOST_POINTS) * 128 * 10 + len(facts.methods) * (100 + 10 + 1 + 15 * 1000)
    shutil.rmtree(received / "raw" / "growth-half")
    shutil.rmtree(received / "raw" / "growth-small")
    monkeypatch.setattr(run_limits, "MOST_NUMBERS", count)
    assert len(run_figures(received).datasets) == 1
    monkeypatch.setattr(run_limits, "MOST_NUMBERS", count - 1)
    with pytest.raises(DataError, match="use several directories, or fewer methods"):
        run_figures(received)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arrays_are_compressed_as_numpy_does(tmp_path, compression):
    np.savez(tmp_path / "right.npz", a=np.zeros(1000))
    with (
        zipfile.ZipFile(tmp_path / "right.npz") as right,
        zipfile.ZipFile(tmp_path / "packed.npz", "w", compression) as packed,
    ):
        packed.writestr("a.npy", right.read("a.npy"))
    with pytest.raises(ValueError, match="'a' is compressed in another way than numpy does"):
        read_arrays(tmp_path / "packed.npz", lambda _: Array("f8", (1000,)), ["a"], 1 << 20)


def test_a_plot_has_at_most_fifty_families_and_says_how_many_are_left_out(out, monkeypatch):
    small = next(one for one in run_figures(out).datasets if one.name == "small")
    method = next(one for one in small.methods if one.complete and one.map is not None)
    many = replace(small, methods=tuple(replace(method, name=f"m{n}", family=f"f{n}") for n in range(60)))
    texts = []
    monkeypatch.setattr(
        benchmark_plots,
        "_png",
        lambda figure, *_: texts.extend(text.get_text() for axes in figure.axes for text in axes.texts) or figure,
    )
    figure = benchmark_plots.quality(many)
    assert [text for text in texts if text.startswith("f")] == [f"f{n}" for n in range(50)]
    assert "10 more not drawn" in texts
    assert figure.get_size_inches()[1] <= 11


def test_a_report_that_cannot_be_drawn_replaces_nothing(received, monkeypatch):
    write_report(received)
    before = (received / "run.json").read_bytes()
    monkeypatch.setattr(benchmark_plots, "plots_of_run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(received, "another command")
    assert (received / "run.json").read_bytes() == before
