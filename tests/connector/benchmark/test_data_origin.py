"""A run measures the indexes that it is given: what was made of others, or of one that changed, is not reported."""

from __future__ import annotations

import json
import shutil

import pytest

from semcut.connector.benchmark.datasets.data_origin import origin_of
from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.dataset_tasks import FittedRequest, IndexPair, dataset_tasks
from semcut.connector.benchmark.measure.run import run
from semcut.connector.benchmark.measure.run_limits import missing_tasks
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.indexes import FaissIndex
from semcut.indexes.errors import DataError
from semcut.indexes.progress import silent
from tests.connector.benchmark.synthetic import encodings, stored
from tests.connector.benchmark.test_run_folders import tree

PLAN = Plan(threads=1, queries=20, batches=(1, 20), rounds=1, call_seconds=0.01, methods=("IndexFlatL2",))


@pytest.fixture
def photos(tmp_path):
    """Give two pairs with the same name, of different records."""
    queries = stored(tmp_path / "queries", *encodings(60, seed=1))
    return [
        IndexPair("photos", stored(tmp_path / year / "photos", *encodings(300, seed=seed)), queries)
        for seed, year in enumerate(("2023", "2024"), 2)
    ]


def tasks_of(out, *pairs, fitted=(), growth=(), bits=(), grid="quick", seed=0):
    return dataset_tasks(out, pairs, fitted, growth, bits, grid=grid, seed=seed, progress=silent)


def change(pair):
    with FaissIndex.open(pair.index) as index:
        index.remove(index.ids()[:5])


def test_a_copy_has_the_same_origin_and_a_change_another(photos, tmp_path):
    first, second = (origin_of(pair.index, pair.queries) for pair in photos)
    assert first != second
    assert first.startswith("300 (")
    copy = shutil.copytree(photos[0].index, tmp_path / "copy")
    assert origin_of(copy, photos[0].queries) == first
    change(photos[0])
    assert origin_of(photos[0].index, photos[0].queries).startswith("295 (")
    assert origin_of(photos[0].queries, photos[0].index) != first


@pytest.mark.parametrize("fitted", [(), (FittedRequest(100, 5),)])
def test_a_data_set_of_other_indexes_is_not_used(photos, tmp_path, fitted):
    out = tmp_path / "out"
    for task in tasks_of(out, photos[0], fitted=fitted):
        task.make()
    before = tree(out)
    assert len(tasks_of(out, photos[0], fitted=fitted)) == 1 + len(fitted)
    with pytest.raises(DataError, match=r"photos was made with data = 300 \(.*, not 300 \(.*: give the same indexes"):
        tasks_of(out, photos[1], fitted=fitted)
    change(photos[0])
    with pytest.raises(DataError, match=r"photos was made with data = 300 \(.*, not 295 \("):
        tasks_of(out, photos[0], fitted=fitted)
    assert tree(out) == before


def test_an_index_that_changes_during_a_run_is_not_copied_unnoticed(photos, tmp_path):
    (task,) = tasks_of(tmp_path / "out", photos[0])
    change(photos[0])
    with pytest.raises(DataError, match="not 300"):
        task.make()


def test_results_of_other_indexes_or_settings_are_not_reported(photos, tmp_path):
    out = tmp_path / "out"
    run(out, tasks_of(out, photos[0]), PLAN, silent)
    shutil.rmtree(out / "data")  # as someone does who keeps the results
    assert missing_tasks(out, tasks_of(out, photos[0]), PLAN) == []
    for tasks, message in (
        (tasks_of(out, photos[1]), "raw/photos was made with data = 300"),
        (tasks_of(out, photos[0], grid="defaults"), "raw/photos was made with grid = quick, not defaults"),
    ):
        with pytest.raises(DataError, match=message):
            run(out, tasks, PLAN, silent)
    facts = out / "raw" / "photos" / "dataset.json"
    content = json.loads(facts.read_text())
    del content["about"]["origin"]
    facts.write_text(json.dumps(content))
    with pytest.raises(DataError, match="data = not recorded, not 300"):
        run(out, tasks_of(out, photos[0]), PLAN, silent)


def test_results_that_cannot_be_read_are_one_error_and_stay(photos, tmp_path):
    out = tmp_path / "out"
    run(out, tasks_of(out, photos[0]), PLAN, silent)
    raw = out / "raw" / "photos"
    (raw / "mine.npz").write_bytes(b"mine")
    (raw / "dataset.json").write_text((raw / "dataset.json").read_text()[:-3])
    before = tree(out)
    with pytest.raises(DataError, match=r"raw/photos/dataset\.json cannot be read \(.*: delete its directory"):
        run(out, tasks_of(out, photos[0]), PLAN, silent)
    (raw / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"has 'mine\.npz', which semcut did not write there"):
        run(out, tasks_of(out, photos[0]), PLAN, silent)
    del before["raw/photos/dataset.json"]
    assert tree(out) == before


def test_records_are_fitted_to_the_first_pair_whatever_others_are_named(photos, tmp_path):
    other = IndexPair("source-photos", photos[1].index, photos[1].queries)
    codes = []
    for name, more in (("alone", ()), ("both", (other,))):
        *_, task = tasks = tasks_of(tmp_path / name, photos[0], *more, fitted=[FittedRequest(100, 5)])
        for one in tasks:
            one.make()
        with Dataset.open(task.make()) as dataset:
            codes.append(dataset.index.get(dataset.index.ids()).codes.tolist())
    assert codes[0] == codes[1]
    clash = IndexPair("Source+photos", photos[1].index, photos[1].queries)
    with pytest.raises(DataError, match=r"two data sets would be named Source\+photos"):
        tasks_of(tmp_path / "out", photos[0], clash, growth=[10])


def test_a_growth_curve_of_other_bits_is_not_used(photos, tmp_path):
    options = {"growth": [100], "grid": "growth"}
    tasks_of(tmp_path / "out", photos[0], bits=[32], **options)[-1].make()
    with pytest.raises(DataError, match=r"growth-100 was made with data = .*first 32 bits, not .*first 16 bits"):
        tasks_of(tmp_path / "out", photos[0], bits=[16], **options)
