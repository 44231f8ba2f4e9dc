from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from semcut.connector.benchmark.report.figures import pareto_front
from semcut.connector.benchmark.report.write_report import write_report
from semcut.connector.evaluation import charts


@pytest.fixture(scope="module")
def run(out):
    return write_report(out, "semcut benchmark out --data <a> & b")


class Page(HTMLParser):
    """A parser that collects the text, the addresses and the unclosed tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.text, self.addresses, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_names_every_method_and_fetches_nothing(out, run):
    raw = (out / "report.html").read_text()
    page = Page(raw)
    assert page.open == []
    text = " ".join(page.text)
    for dataset in run.datasets:
        for method in dataset.methods:
            assert method.name in text
    assert not re.search(r"\b(target|targets|must reach|missed|met)\b", text)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script", re.sub(r"base64,[A-Za-z0-9+/=]+", "", raw))
    assert "semcut benchmark out --data &lt;a&gt; &amp; b" in raw
    assert "prefers-color-scheme: dark" in raw
    assert len([address for address in page.addresses if address.startswith("data:")]) == 8


def test_run_json_has_the_figures_under_their_usual_names(out, run):
    content = json.loads((out / "run.json").read_text())
    assert content == json.loads(json.dumps(run.as_dict()))
    assert list(content) == ["command", "datasets"]
    assert list(content["datasets"][0]) == [
        "name", "about", "grid", "machine", "plan", "structures", "cells", "partitions", "column_bytes",
        "exact_queries", "started", "finished", "relevant", "probes", "methods",
    ]  # fmt: skip
    common = [
        "name", "family", "parameters", "structure", "semcut", "queries", "batches", "map", "precision", "map_all",
        "map_all_queries", "recall", "build_seconds", "memory_bytes", "memory_peak", "disk_bytes", "complete",
    ]  # fmt: skip
    steps = ["recall_equations", "recall_equations_queries", "scanned", "cut_off", "lost"]
    for dataset in content["datasets"]:
        assert "0.2" in dataset["relevant"]
        for method in dataset["methods"]:
            assert list(method) == (common[:12] + steps + common[12:] if method["semcut"] else common)
            assert list(method["batches"]) == ["1", "32", "128"]
            assert list(method["batches"]["1"]) == [
                "queries", "calls", "queries_per_second", "p50_ms", "p95_ms", "p99_ms"
            ]  # fmt: skip
            if method["semcut"]:
                assert set(method["parameters"]) == {"cutoff", "shortlist", "ranking"}
                assert set(method["scanned"]) == {"partitions", "cells", "codes"}
                assert set(method["lost"]) == {"cutoff", "pruning", "shortlist", "found"}


def test_the_best_methods_are_complete_and_no_other_beats_them(run):
    for dataset in run.compared:
        batch = dataset.plan.largest_batch
        best = dataset.best_methods()
        assert best == sorted(best, key=lambda method: -method.map)
        for method in dataset.methods:
            beaten = any(
                other.map >= method.map
                and other.queries_per_second(batch) >= method.queries_per_second(batch)
                and other is not method
                for other in dataset.methods
                if other.complete
            )
            assert (method in best) == (method.complete and not beaten)


def test_plots_are_small_files_too(out, run):
    files = sorted((out / "plots").iterdir())
    assert [file.name for file in files] == ["growth.png", "small-quality.png", "small-recall.png", "small-scanned.png"]
    for file in files:
        assert 10_000 < file.stat().st_size < 300_000
        with Image.open(file) as picture:
            assert len(picture.convert("RGB").resize((200, 100)).getcolors(1 << 16)) > 20


def test_a_pareto_front_holds_the_points_that_no_other_beats():
    points = [(0.5, 10), (0.6, 5), (0.4, 10), (0.7, 1), (0.6, 4), (0.65, 1), (0.5, 10)]
    assert pareto_front(points) == [(0.5, 10), (0.6, 5), (0.7, 1)]
    slow = [p for p in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)]
    assert sorted(set(slow)) == pareto_front(points)
    assert pareto_front([]) == []


@pytest.mark.parametrize("seed", range(10))
def test_labels_of_curves_are_apart_and_in_order_and_move_as_little_as_possible(seed):
    rng = np.random.default_rng(seed)
    wanted = np.sort(rng.choice([0, 0.9]) + rng.random(int(rng.integers(1, 12))) * rng.choice([0.1, 1]))
    wanted = np.minimum(wanted, 1)
    heights = np.array(charts.spread(wanted.tolist(), 0.05))
    assert (np.diff(heights) > 0.05 - 1e-9).all()
    assert -1e-9 <= heights[0] <= heights[-1] <= 1 + 1e-9
    if len(wanted) == 1 or np.diff(wanted).min() >= 0.05:
        np.testing.assert_allclose(heights, wanted)
    moved = ((heights - wanted) ** 2).sum()
    for _ in range(200):
        other = np.sort(heights + rng.normal(0, rng.choice([0.003, 0.03]), len(heights)))
        if (np.diff(other) >= 0.05).all() and other[0] >= 0 and other[-1] <= 1:
            assert ((other - wanted) ** 2).sum() >= moved - 1e-12
