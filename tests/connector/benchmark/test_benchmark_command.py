"""Test `semcut benchmark` from end to end, and the script that runs the same command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest

from semcut.connector.benchmark.datasets.dataset_tasks import FittedRequest
from semcut.connector.benchmark.measure.machine import set_threads
from semcut.connector.cli.benchmark_command import FittedType, RecordCountsType
from semcut.indexes.storage.catalogue_format import FORMAT_VERSION
from tests.command import semcut

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmark.py"


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads, which a run sets for its whole process."""
    before = faiss.omp_get_max_threads()
    yield
    set_threads(before)


def test_copied_fitted_and_growing_data_are_in_one_report(pair, tmp_path, threads):
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
    assert "shortlist 100, distance, and other indexes of at least its mAP:" in " ".join(done.stdout.split())
    assert "- usearch was not measured" in done.stdout
    assert not re.search(r"target|missed|wanted|\bmet\b", done.stdout)
    assert 'id="growth"' in (tmp_path / "out" / "report.html").read_text()
    assert content["command"].startswith("semcut benchmark out --data")


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["out"], "nothing to run: give --data", 2),
        (["out", "--quick", "--defaults"], "--quick and --defaults both choose the settings", 2),
        (["out", "--fitted", "many"], "is not of the form 1e6x100", 2),
        (["out", "--growth", "1e5,some"], "is not of the form 1e5,1e6,1e7", 2),
        (["out", "--quick", "--methods", "annoy"], "no method begins with annoy", 1),
        (["out", "--data", "nowhere", "nothing"], "nowhere is not a directory", 1),
        (["letter.txt", "--fitted", "1e3x10"], "letter.txt is not a directory", 1),
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


def test_help_names_all_options_and_is_that_of_the_script(tmp_path):
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


def test_numbers_of_records_can_be_written_with_exponents_and_underscores():
    read = FittedType().convert
    assert read("1e6x100", None, None) == FittedRequest(1_000_000, 100)
    assert read("20_000x1000:1.5", None, None) == FittedRequest(20_000, 1000, 1.5)
    assert read("20_000x1000:1.5", None, None).name == "fitted-20000x1000-zipf1.5"
    assert RecordCountsType().convert("1e5,2000", None, None) == (100_000, 2000)


def test_without_matplotlib_the_error_is_one_line(tmp_path):
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
        "from semcut.indexes.errors import MissingDependencyError\n"
        "try:\n    import semcut.connector.cli.benchmark_command\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "matplotlib not installed, needed to draw figures: run `pip install 'semcut[benchmark]'`, in a checkout "
        "`pip install '.[benchmark]'`.\n"
    )


WITHOUT_TORCH = """
import sys

sys.modules.update(dict.fromkeys(("torch", "torchvision", "safetensors")))  # as if they were not installed
from semcut.connector.cli.app import main

main()
"""


def without_torch(*arguments, cwd, cache):
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    environment = {**os.environ, "SEMCUT_CACHE": str(cache)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_torch_is_needed_only_to_train_on_digits(pair, tmp_path):
    """`--quick` without data trains a network once and finds it in the cache later."""
    options = ("--quick", "--methods", "IndexBinaryFlat", "--rounds", 1, "--threads", 1)
    cache = tmp_path / "cache"
    cache.mkdir()
    done = without_torch("benchmark", "given", "--data", *pair, *options, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "given" / "report.html").is_file()

    done = without_torch("benchmark", "untrained", *options, cwd=tmp_path, cache=cache)
    assert done.returncode == 1
    assert "torch" in done.stderr
    assert "pip install 'semcut[train]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

    place = cache / f"benchmark-digits-{FORMAT_VERSION}"
    for source, name in zip(pair, ("index", "queries"), strict=True):
        shutil.copytree(source, place / name)
    done = without_torch("benchmark", "trained", *options, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "trained" / "run.json").read_text())
    assert [one["name"] for one in content["datasets"]] == ["digits", "fitted-20000x100"]
