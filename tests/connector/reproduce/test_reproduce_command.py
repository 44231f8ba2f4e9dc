"""Tests of `semcut reproduce`, run as a user runs it."""

from __future__ import annotations

import json

from tests.command import semcut
from tests.connector.reproduce.conftest import PROTOCOL


def test_reproduce_measures_networks_and_makes_the_page(networks, tmp_path):
    one, other = networks["paper-0"], networks["ortho-0"]
    given = ("--data", "digits", "--protocol", PROTOCOL)
    first = json.loads(semcut("reproduce", "out", one, *given, "--json", cwd=tmp_path).stdout)
    (network,) = first["networks"]
    assert network["name"].startswith("paper-0-")
    assert 0.3 < network["fused 0"] <= 1
    done = semcut("reproduce", "out", other, *given, cwd=tmp_path)
    assert "orthohash" in done.stdout
    text = (tmp_path / "out" / "results.md").read_text()
    assert text.count("$ semcut reproduce out") == 2
    semcut("reproduce", "out", cwd=tmp_path)
    assert (tmp_path / "out" / "results.md").read_text() == text


def test_misuse_is_one_line(networks, tmp_path):
    done = semcut("reproduce", "out", networks["paper-0"], cwd=tmp_path, status=2)
    assert "give both" in done.stderr
    done = semcut("reproduce", "out", cwd=tmp_path, status=1)
    assert "no network was measured there" in done.stderr
    done = semcut("reproduce", "out", "--speed", tmp_path, cwd=tmp_path, status=1)
    assert "holds no finished benchmark" in done.stderr
