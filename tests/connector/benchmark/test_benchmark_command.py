"""`semcut benchmark`, from end to end, and the script that is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest

from semcut.connector.benchmark.datasets.dataset_sources import Wanted
from semcut.connector.benchmark.measure.machine import pin_threads
from semcut.connector.cli.benchmark_command import RecordCounts, Sizes
from tests.command import semcut

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmark.py"


@pytest.fixture
def threads() -> Iterator[None]:
    """What a run has set for its whole process is as before."""
    before = faiss.omp_get_max_threads()
    yield
    pin_threads(before)


def test_real_fitted_and_growing_data_in_one_report(pair, tmp_path, threads):
    done = semcut(
        "benchmark", "out", "--data", *pair, "--fitted", "1e3x20:1", "--growth", "1000,2000", "--quick", "--methods",
        "semcut (faiss),IndexBinaryFlat", "--rounds", 1, "--threads", 1, cwd=tmp_path,
    )  # fmt: skip
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    names = [(one["name"], one["grid"], one["about"]["classes"]) for one in content["datasets"]]
    assert names == [
        ("small", "quick", 12), ("fitted-1000x20-zipf1", "quick", 20),
        ("growth-1000", "growth", 200), ("growth-2000", "growth", 200),
    ]  # fmt: skip
    assert all(one["plan"]["threads"] == 1 for one in content["datasets"])
    assert "report.html" in done.stdout
    assert "Pareto" in done.stdout
    assert 'id="growth"' in (tmp_path / "out" / "report.html").read_text()
    assert content["command"].startswith("semcut benchmark out --data")


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["out"], "nothing to run: give --data", 2),
        (["out", "--quick", "--defaults"], "--quick and --defaults both say which points", 2),
        (["out", "--fitted", "many"], "is not like 1e6x100", 2),
        (["out", "--growth", "1e5,some"], "is not like 1e5,1e6,1e7", 2),
        (["out", "--quick", "--methods", "annoy"], "no method begins with annoy", 1),
        (["out", "--data", "nowhere", "nothing"], "nowhere is not a directory", 1),
        (["letter.txt", "--data", "nowhere", "nothing"], "letter.txt is not a directory", 1),
        (["out", "--data", "a", "b", "--data", "a", "c"], "two data sets would be named a", 1),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, message, status):
    (tmp_path / "letter.txt").write_text("dear")
    done = semcut("benchmark", *arguments, cwd=tmp_path, status=status)
    assert message in done.stderr
    assert done.stdout == ""
    if status == 1:
        assert len(done.stderr.strip().splitlines()) == 1


def test_help_is_for_people(tmp_path):
    shown = semcut("benchmark", "--help", cwd=tmp_path).stdout
    script = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True)
    assert [line.strip() for line in script.stdout.splitlines()[1:3]] == [
        line.strip() for line in shown.splitlines()[1:3]
    ]
    for option in (
        "--data INDEX QUERIES",
        "--fitted",
        "--growth",
        "--quick",
        "--defaults",
        "--methods",
        "--threads",
        "--json",
    ):
        assert option in shown


def test_sizes_are_read_as_people_write_them():
    read = RecordCounts().convert
    assert read("1e6x100", None, None) == Wanted(1_000_000, 100)
    assert read("20_000x1000:1.5", None, None) == Wanted(20_000, 1000, 1.5)
    assert read("20_000x1000:1.5", None, None).name == "fitted-20000x1000-zipf1.5"
    assert Sizes().convert("1e5,2000", None, None) == (100_000, 2000)


def test_without_matplotlib_it_is_one_line(tmp_path):
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'matplotlib' else real(name, *rest)\n"
        "from semcut.indexes.errors import MissingDependencyError\n"
        "try:\n    import semcut.connector.cli.benchmark_command\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("matplotlib not installed, needed to draw figures: run `pip install 'semcut[benchmark]'`.\n")
