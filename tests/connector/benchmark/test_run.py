from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.benchmark.datasets.dataset_tasks import DatasetTask
from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts
from semcut.connector.benchmark.measure.run import run
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.benchmark.measure.stored_results import load_method
from semcut.connector.benchmark.methods.grids import structures
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.connector.benchmark.report.summarise import dataset_figures, run_figures
from semcut.connector.data.labels import RecordLabels
from semcut.indexes.errors import DataError
from semcut.indexes.progress import silent
from semcut.indexes.scanners.engine_names import available_engines

ROOT = Path(__file__).parents[3]


def named(datasets, name):
    return next(one for one in datasets if one.name == name)


@pytest.fixture(scope="module")
def small_figures(out):
    return named(run_figures(out).datasets, "small")


def plan_of(out):
    return Plan(**json.loads((out / "plan.json").read_text()))


def test_every_method_has_raw_results_of_every_query_and_call(out, small_figures):
    facts = DatasetFacts.read(out / "raw" / "small")
    assert facts is not None
    files = {path.name for path in (out / "raw" / "small").glob("*.npz")}
    assert {method.file for method in facts.methods} | {"truth.npz", "queries.npz", "probes.npz"} == files
    for method in facts.methods:
        arrays = load_method(out / "raw" / "small", facts, method, 128)
        queries = arrays["ids"].shape[0]
        assert arrays["ids"].shape == arrays["distances"].shape == arrays["labels"].shape == (queries, 10)
        assert queries in (128, arrays["size_128"])  # of all queries, or of a cut batch if these take too long
        assert len(arrays["seconds_1"]) >= 10
        assert len(arrays["seconds_128"]) == 1
    assert facts.machine.processor
    assert facts.machine.memory_bytes > 0
    assert facts.machine.cores
    assert {"python", "numpy", "semcut"} <= set(facts.machine.versions)


def test_all_kinds_of_methods_are_in_the_figures(small_figures):
    families = {method.family for method in small_figures.methods}
    for name in ("BinaryFlat", "BinaryIVF", "BinaryHNSW", "BinaryHash", "BinaryMultiHash"):
        assert {f"Index{name}", f"Index{name} + re-rank"} <= families
    assert {"IndexFlatL2", "IndexIVFFlat", "IndexHNSWFlat", "IndexIVFPQ + refine"} <= families
    assert any(family.startswith("semcut") and family.endswith("by fused") for family in families)


def test_exact_methods_have_full_recall_and_pruning_loses_nothing(small_figures):
    for method in small_figures.methods:
        if method.name == "IndexFlatL2":
            assert method.recall == 1
        if method.semcut is not None:
            point, lost = method.semcut.point, method.semcut.lost
            assert lost.pruning == 0
            assert sum(asdict(lost).values()) == pytest.approx(1)
            assert method.semcut.scanned["codes"] >= small_figures.relevant[point.cutoff] - 1e-9
            if point.shortlist is None:
                assert method.semcut.recall_equations == 1
                assert lost.shortlist == 0
            if point.cutoff == 0:
                assert lost.cutoff == 0


def test_rankings_of_all_records_are_measured_if_a_method_has_them(small_figures):
    ranked = {method.name for method in small_figures.methods if method.map_all is not None}
    assert {"IndexBinaryFlat", "IndexFlatL2"} <= ranked
    assert all(name in ("IndexBinaryFlat", "IndexFlatL2") or "shortlist all" in name for name in ranked)
    for method in small_figures.methods:
        if method.map_all is not None:
            assert 0 < method.map_all <= 1


def test_figures_are_those_of_evaluate(dataset, small_figures):
    from semcut.connector.evaluation.evaluate import evaluate

    name = next(method.structure for method in small_figures.methods if method.semcut is not None)
    method = next(m for m in small_figures.methods if m.name == f"{name}, t=0.2, shortlist 100, distance")
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset.queries))[:128])[: method.queries]
    labels = RecordLabels(np.arange(len(dataset.record_labels)), dataset.record_labels)
    measured = evaluate(
        dataset.index, labels, dataset.queries.get(chosen), dataset.query_labels[chosen],
        tuple(map(str, range(12))),
    )  # fmt: skip
    assert method.map == pytest.approx(measured.overall.map_k)
    assert method.precision == pytest.approx(measured.overall.precision_k)
    assert method.semcut.scanned["codes"] == pytest.approx(measured.codes_scanned)
    assert method.semcut.scanned["cells"] == pytest.approx(measured.cells_scanned)


def test_a_complete_data_set_is_not_measured_again_and_has_the_same_figures(out, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    before = run_figures(copy)

    def never() -> Path:
        raise AssertionError("measured again")

    tasks = [DatasetTask(one.name, one.grid, never) for one in before.datasets]
    run(copy, tasks, plan_of(copy), silent)
    assert run_figures(copy) == before


def test_a_directory_of_another_run_or_of_something_else_is_refused(out, tmp_path):
    with pytest.raises(DataError, match="holds a run with rounds = 1, not 2:"):
        run(out, [], plan_of(out).model_copy(update={"rounds": 2}), silent)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="holds no run of a benchmark"):
        run(tmp_path, [], plan_of(out), silent)
    with pytest.raises(DataError, match="not a directory"):
        run(tmp_path / "letter.txt", [], plan_of(out), silent)


def test_damaged_raw_results_are_one_error(out, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    victim = next((copy / "raw" / "small").glob("IndexFlatL2*"))
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        run_figures(copy)


def test_results_with_a_strange_description_are_one_error(out, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for content in ("[]", "{}", '{"about": {"name": 3}}'):
        (copy / "raw" / "small" / "dataset.json").write_text(content)
        with pytest.raises(DataError, match="does not describe the results of a benchmark"):
            run_figures(copy)
    (copy / "raw" / "small" / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json cannot be read"):
        run_figures(copy)
    (copy / "raw" / "small" / "dataset.json").unlink()
    assert [one.name for one in run_figures(copy).datasets] == ["growth-half", "growth-small"]


def test_methods_can_be_chosen_by_the_beginning_of_their_names():
    names = [structure.name for structure in structures("full", ["indexbinaryh", "IndexFlatL2"])]
    assert names == ["IndexBinaryHNSW", "IndexBinaryHash", "IndexFlatL2"]
    with pytest.raises(DataError, match="no method begins with annoy: there are semcut"):
        structures("full", ["annoy"])


def test_defaults_are_one_point_of_every_engine_by_each_ranking():
    found = {one.name: [method.parameters for method in one.methods()] for one in structures("defaults", ["semcut"])}
    default = {"cutoff": 0.2, "shortlist": 100, "ranking": "distance"}
    assert asdict(SearchPoint()) == default
    expected = [default, {**default, "ranking": "fused"}]
    assert found == {f"semcut ({engine})": expected for engine in available_engines()}
    others = [one.name for one in structures("defaults") if not one.name.startswith("semcut")]
    assert others == [one.name for one in structures("quick") if not one.name.startswith("semcut")]


def test_a_killed_run_continues_with_the_missing_data_sets(pair, tmp_path):
    command = [
        sys.executable, str(ROOT / "scripts" / "benchmark.py"), "out", "--data", *map(str, pair), "--bits", "64",
        "--bits", "32", "--quick", "--methods", "IndexBinaryFlat,IndexIVFFlat", "--rounds", "1", "--json",
    ]  # fmt: skip
    first = tmp_path / "out" / "raw" / "small-64bits"
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 100
    while not (first / "dataset.json").is_file():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "run.json").exists()
    kept = {path.name: path.read_bytes() for path in first.iterdir()}
    before = dataset_figures(first, DatasetFacts.read(first))

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == kept
    content = json.loads(done.stdout)
    assert [one["name"] for one in content["datasets"]] == ["small-64bits", "small-32bits"]
    assert content["datasets"][0] == json.loads(json.dumps(before.as_dict()))
    assert content["datasets"][1]["about"]["bits"] == 32
    assert content["command"].startswith("benchmark.py out --data")
