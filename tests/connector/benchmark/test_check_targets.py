"""Test scripts/check_targets.py: on figures with known ratios, and as a command on the directory of a run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from semcut.connector.benchmark.datasets.dataset import About
from semcut.connector.benchmark.measure.machine import Machine
from semcut.connector.benchmark.measure.run_plan import Plan, keep_plan
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.connector.benchmark.report.figures import BatchFigures, DatasetFigures, MethodFigures, SemcutFigures

SCRIPT = Path(__file__).parents[3] / "scripts" / "check_targets.py"


@pytest.fixture(scope="module")
def checks():
    spec = importlib.util.spec_from_file_location("check_targets", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module.checks
    del sys.modules[spec.name]


def method(name, family, speed, p50, quality, *, semcut=None, parameters=None):
    return MethodFigures(
        name=name,
        family=family,
        parameters=parameters or {},
        structure=name,
        queries=1024,
        batches={1: BatchFigures(1, 1, 1.0, p50, p50, p50), 1024: BatchFigures(1024, 1, speed, 1.0, 1.0, 1.0)},
        map=quality,
        precision=None,
        map_all=None,
        map_all_queries=None,
        recall=None,
        semcut=semcut,
        build_seconds=1.0,
        memory_bytes=1,
        memory_peak=1,
        disk_bytes=1,
        complete=True,
    )


def figures(classes=100, records=1_000_000, hnsw=((16, 900, 0.5), (64, 400, 0.8), (128, 200, 0.9))):
    default = SemcutFigures(SearchPoint(), None, 0, {"codes": 0.015}, 0.0, None)
    return DatasetFigures(
        name="fitted",
        about=About(name="fitted", source="fitted", records=records, queries=1024, classes=classes, bits=64, dim=128),
        grid="defaults",
        machine=Machine("", 2, 0, 0, "", [0.0], {}),
        plan=Plan(threads=2),
        structures={},
        cells=1,
        partitions=1,
        column_bytes={},
        exact_queries={},
        started=0.0,
        finished=1.0,
        relevant={0.2: 0.01},
        probes={
            "scan semcut (faiss)": 0.3, "scan semcut (compiled)": 0.1,
            "total semcut (faiss)": 1.0, "in scan semcut (faiss)": 0.5,
            "in re-rank semcut (faiss)": 0.2,
        },
        methods=(
            method("semcut (compiled)", "semcut", 1000, 0.1, 0.75, semcut=default),
            method("semcut (faiss)", "semcut", 500, 0.5, 0.75, semcut=default),
            method("IndexBinaryFlat", "IndexBinaryFlat", 60, 1.2, 0.6),
            method("IndexBinaryFlat + re-rank of 100", "IndexBinaryFlat + re-rank", 50, 1.3, 0.74),
            *(
                method(f"hnsw {ef}", "IndexHNSWFlat", speed, 1, quality, parameters={"efSearch": ef})
                for ef, speed, quality in hnsw
            ),
        ),
    )  # fmt: skip


def test_ratios_are_of_the_default_scanner_and_met_or_missed(checks):
    found = checks(figures())
    assert [check.value for check in found] == pytest.approx([3.0, 20.0, 2.5, 13.0, 12.0, 0.3, 1.5, 0.01])
    assert [check.met for check in found] == [True, False, True, True, True, True, True, True]
    assert found[1].fulfilment == pytest.approx(0.8)
    assert found[5].at_most
    assert "shortlist 50%, re-rank 20%" in found[5].note


def test_the_graph_to_compare_with_is_the_fastest_of_at_least_the_same_map_or_else_the_best(checks):
    assert "efSearch 64, mAP 0.8000" in checks(figures())[2].note
    found = checks(figures(hnsw=((16, 900, 0.5), (64, 400, 0.6))))
    assert found[2].value == pytest.approx(2.5)
    assert "no efSearch has semcut's mAP of 0.7500; the best is 0.6000 at efSearch 64" in found[2].note


def test_quality_is_not_compared_with_that_of_fewer_queries(checks):
    whole = figures()
    partly = replace(
        whole,
        methods=tuple(one if one.semcut is not None else replace(one, queries=54) for one in whole.methods),
    )
    lines = [{check.compared for check in checks(one)} for one in (whole, partly)]
    left_out = lines[0] - lines[1]
    assert any("mAP@k" in line for line in left_out)
    assert any("HNSW" in line for line in left_out)
    assert len(left_out) == 2


def test_targets_depend_on_the_classes_and_small_data_has_none(checks):
    assert [check.target for check in checks(figures(classes=1000))][:4] == [3, 60, 3, 15]
    assert all(check.target is None and check.met is None for check in checks(figures(records=20_000)))
    assert checks(replace(figures(), methods=(method("IndexFlatL2", "IndexFlatL2", 1, 1, 0.5),))) == []


def check_targets(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def test_the_command_prints_the_table_of_a_run(out):
    done = check_targets(out)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.replace("│", " ").split())
    for part in ("small: at cutoff 0.2 and a shortlist of 100", "queries/s", "codes scanned over"):
        assert part in shown


def test_a_directory_without_a_run_is_one_line(tmp_path):
    done = check_targets(tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"{tmp_path} holds no run of a benchmark, which has a plan.json: give the directory of a run"
    )
    keep_plan(tmp_path, Plan(threads=2))
    assert check_targets(tmp_path).stderr.strip() == (
        f"{tmp_path} has no finished data set of a benchmark: give a directory that semcut benchmark wrote"
    )
