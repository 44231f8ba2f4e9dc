from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from semcut.connector.benchmark.report import benchmark_plots, results
from semcut.connector.benchmark.report.targets import targets
from semcut.connector.evaluation import charts


@pytest.fixture(scope="module")
def content(out):
    return results.write(out, "semcut benchmark out --data <a> & b")


class Page(HTMLParser):
    """Text, addresses and unclosed tags of a page."""

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


def test_the_page_names_every_method_and_asks_no_other_host(out, content):
    raw = (out / "report.html").read_text()
    page = Page(raw)
    assert page.open == []
    text = " ".join(page.text)
    for dataset in content["datasets"]:
        for method in dataset["methods"]:
            assert method["name"] in text
        for line in dataset["targets"] if dataset["grid"] != "growth" else []:
            assert line["what"] in text
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script", re.sub(r"base64,[A-Za-z0-9+/=]+", "", raw))
    assert "semcut benchmark out --data &lt;a&gt; &amp; b" in raw
    assert "prefers-color-scheme: dark" in raw
    assert len([address for address in page.addresses if address.startswith("data:")]) == 8


def test_pictures_are_files_too_and_small(out, content):
    files = sorted((out / "plots").iterdir())
    assert [file.name for file in files] == ["growth.png", "small-quality.png", "small-recall.png", "small-scanned.png"]
    for file in files:
        assert 10_000 < file.stat().st_size < 300_000
        with Image.open(file) as picture:
            assert len(picture.convert("RGB").resize((200, 100)).getcolors(1 << 16)) > 20


def test_a_front_holds_what_nothing_beats():
    points = [(0.5, 10), (0.6, 5), (0.4, 10), (0.7, 1), (0.6, 4), (0.65, 1), (0.5, 10)]
    assert benchmark_plots.front(points) == [(0.5, 10), (0.6, 5), (0.7, 1)]
    slow = [p for p in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)]
    assert sorted(set(slow)) == benchmark_plots.front(points)
    assert benchmark_plots.front([]) == []


@pytest.mark.parametrize("seed", range(10))
def test_labels_keep_their_distance_and_their_order_and_move_no_more_than_they_must(seed):
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


# targets


def method(name, family, speed, p50, quality, **more):
    batches = {"1": {"queries_per_second": 1, "p50_ms": p50}, "1024": {"queries_per_second": speed, "p50_ms": 1}}
    return {
        "name": name,
        "family": family,
        "structure": name,
        "parameters": {},
        "batches": batches,
        "map": quality,
        "queries": 1024,
    } | more


def figures(classes=100, records=1_000_000, hnsw=((16, 900, 0.5), (64, 400, 0.8), (128, 200, 0.9))):
    ours = {"cutoff": 0.2, "shortlist": 100, "ranking": "distance"}
    return {
        "about": {"classes": classes, "records": records},
        "relevant": {"0.2": 0.01},
        "probes": {
            "scan semcut (faiss)": 0.3, "scan semcut (compiled)": 0.1,
            "total semcut (faiss)": 1.0, "in scan semcut (faiss)": 0.5,
            "in re-rank semcut (faiss)": 0.2,
        },
        "methods": [
            method("semcut (compiled)", "semcut", 1000, 0.1, 0.75, parameters=ours, scanned={"codes": 0.015}),
            method("semcut (faiss)", "semcut", 500, 0.5, 0.75, parameters=ours, scanned={"codes": 0.015}),
            method("IndexBinaryFlat", "IndexBinaryFlat", 60, 1.2, 0.6),
            method("IndexBinaryFlat + re-rank of 100", "IndexBinaryFlat + re-rank", 50, 1.3, 0.74),
            *(
                method(f"hnsw {ef}", "IndexHNSWFlat", speed, 1, quality, parameters={"efSearch": ef})
                for ef, speed, quality in hnsw
            ),
        ],
    }  # fmt: skip


def lines(dataset):
    found = targets(dataset)
    return {line["what"].split(":")[0] + ("hnsw" if "HNSW" in line["what"] else ""): line for line in found}, found


def test_ratios_are_of_the_best_engine_and_met_or_missed():
    _, found = lines(figures())
    values = [line["value"] for line in found]
    assert values == pytest.approx([3.0, 20.0, 2.5, 13.0, 12.0, 0.3, 1.5, 0.01])
    assert [line["met"] for line in found] == [True, False, True, True, True, True, True, True]
    assert found[1]["by"] == pytest.approx(0.8)
    assert found[5]["at_most"]
    assert "scan 50%, re-rank 20%" in found[5]["note"]


def test_the_rival_graph_is_the_fastest_of_at_least_the_same_map_or_else_the_best():
    _, found = lines(figures())
    assert "efSearch 64, mAP 0.8000" in found[2]["note"]
    _, found = lines(figures(hnsw=((16, 900, 0.5), (64, 400, 0.6))))
    assert found[2]["value"] == pytest.approx(2.5)
    assert "no efSearch has semcut's mAP of 0.7500; the best is 0.6000 at efSearch 64" in found[2]["note"]


def test_quality_is_not_compared_with_that_of_fewer_queries():
    whole, some = figures(), figures()
    for one in some["methods"]:
        if "semcut" not in one["name"]:
            one["queries"] = 54
    said = [[line["what"] for line in targets(one)] for one in (whole, some)]
    gone = set(said[0]) - set(said[1])
    assert any("mAP@k" in what for what in gone)
    assert any("HNSW" in what for what in gone)
    assert len(gone) == 2


def test_targets_depend_on_the_classes_and_small_data_has_none():
    assert [line["target"] for line in targets(figures(classes=1000))][:4] == [3, 60, 3, 15]
    assert all(line["target"] is None and line["met"] is None for line in targets(figures(records=20_000)))
    assert targets({**figures(), "methods": [method("IndexFlatL2", "IndexFlatL2", 1, 1, 0.5)]}) == []
