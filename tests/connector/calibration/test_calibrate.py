"""Calibration with labels and with copies, by functions and by the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.calibration import calibrate
from semcut.connector.calibration.calibrate import (
    calibrate_by_copies,
    calibrate_by_labels,
    keep_defaults,
    losses_of_classes,
)
from semcut.connector.calibration.risk_bounds import CUTOFFS
from semcut.connector.data.sources import ImageSet
from semcut.connector.retrieval.model_link import change_link, required_link
from semcut.connector.retrieval.search_defaults_of import SearchDefaults
from semcut.indexes import DataError, FaissIndex, InvalidParameterError
from semcut.indexes.errors import CheckpointError, LockedError, NotAnIndexError
from semcut.indexes.scoring.equations import relevance
from tests.command import semcut


@pytest.fixture(scope="module")
def connector(stored: Path):
    with Connector.open(stored) as connector:
        yield connector


@pytest.fixture
def copied_index(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "index"))


def test_losses_are_shares_of_the_records_of_the_class(connector, digits_test: ImageSet):
    queries = connector.encoder.encode(digits_test.files[:30])
    labels = digits_test.labels[:30]
    known = connector.labels(digits_test.classes)
    losses = losses_of_classes(connector.index, known, queries, labels)
    weights = connector.index.similarity.weights(queries.probabilities)
    for query, label in enumerate(labels.tolist()):
        right = connector.index.get(known.ids[known.labels == label]).probabilities
        values = relevance(weights[query], right)
        for place in (0, 100, 300, 450):
            expected = np.mean(values <= np.float32(CUTOFFS[place]))
            assert losses[query, place] == pytest.approx(expected, abs=1 / len(right))


def test_labels_choose_a_cutoff_that_keeps_the_level_and_the_best_ranking(connector, digits_test: ImageSet):
    queries = connector.encoder.encode(digits_test.files)
    settings = {"miss": 0.2, "confidence": 0.9}
    found = calibrate_by_labels(connector, queries, digits_test.labels, digits_test.classes, **settings)
    assert found.cutoff is not None
    assert 0 < found.lost <= 0.2
    assert 0 < found.scanned < 1
    assert found.fits
    assert set(found.quality) == {"distance", "fused", "relevance"}
    assert found.quality[found.ranking] == max(found.quality.values())
    strict = calibrate_by_labels(connector, queries, digits_test.labels, digits_test.classes, miss=0.1, confidence=0.9)
    assert strict.cutoff is None or strict.cutoff < found.cutoff


def test_copies_choose_a_cutoff_at_which_images_are_found(connector):
    found = calibrate_by_copies(connector, images=80, miss=0.2, confidence=0.9)
    assert found.by == "copies"
    assert found.images == 80
    assert found.quality["distance"] > 5 * 10 / len(connector.index)  # by chance, 10 of all
    assert found.ranking == "distance" or found.quality[found.ranking] > found.quality["distance"] + 0.01
    assert (found.cutoff is None) == (not found.fits) or found.lost <= 0.2


def test_the_shortlist_finds_nearly_what_a_search_of_every_record_finds(connector, monkeypatch):
    """Small shortlists stand for the usual ones, since the index is small."""
    monkeypatch.setattr(calibrate, "SHORTLISTS", (10, 15, 40, 160, 400))
    found = calibrate_by_copies(connector, images=40, miss=0.3, confidence=0.8)
    copies = connector.encoder.encode(connector.paths(connector.index.ids())[:200])

    def same(shortlist: int) -> float:
        settings = {"k": 10, "cutoff": found.cutoff, "ranking": found.ranking}
        every, some = (connector.index.search(copies, shortlist=one, **settings).ids for one in (None, shortlist))
        return float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(every.tolist(), some.tolist(), strict=True)]))

    assert found.shortlist in (40, 160, 400)
    assert same(10) < 0.9
    assert same(found.shortlist) > 0.95
    monkeypatch.setattr(calibrate, "SHORTLISTS", (10,))
    assert calibrate_by_copies(connector, images=40, miss=0.3, confidence=0.8).shortlist is None


def test_an_index_is_searched_with_its_own_shortlist(copied_index: Path, digits_test: ImageSet):
    change_link(copied_index, shortlist=11, cutoff=None)
    with Connector.open(copied_index) as connector:
        images, queries = digits_test.files[:20], connector.encoder.encode(digits_test.files[:20])
        expected = connector.index.search(queries, k=10, cutoff=None, shortlist=11).ids
        assert not np.array_equal(expected, connector.index.search(queries, k=10, cutoff=None, shortlist=100).ids)
        assert [[hit.id for hit in hits] for hits in connector.search(images, k=10)] == expected.tolist()
        assert len(connector.search(images[:1], k=50)[0]) == 50  # a shortlist of at least k
    for wrong in (0, -1, "x", True, 10**9, 1.5, [3]):
        change_link(copied_index, shortlist=wrong)
        assert required_link(copied_index).defaults.shortlist == 100
    change_link(copied_index, shortlist=None)
    assert required_link(copied_index).defaults.shortlist is None


def test_without_semantics_there_is_no_cutoff(connector, monkeypatch):
    monkeypatch.setattr("semcut.connector.calibration.calibrate._MOST_SCANNED", 0.0)
    found = calibrate_by_copies(connector, images=40, miss=0.3, confidence=0.8)
    assert (found.cutoff, found.ranking, found.fits, found.lost, found.scanned) == (None, "distance", False, 0.0, 1.0)


def test_what_cannot_be_shown_is_refused(connector, digits_test: ImageSet):
    with pytest.raises(DataError, match=r"at least 325 are needed to show with 95% confidence that at most 1\.0%"):
        calibrate_by_copies(connector, images=25)
    queries = connector.encoder.encode(digits_test.files[:10])
    with pytest.raises(DataError, match="0 of the 10 images have records of their class"):
        calibrate_by_labels(connector, queries, np.zeros(10, np.int64), ["no digit"])
    for miss in (0, 1, -1, "x", True, None):
        with pytest.raises(InvalidParameterError, match=r"miss = .*expected a number between 0 and 1"):
            calibrate_by_copies(connector, miss=miss)


def test_defaults_are_kept_with_the_index(copied_index: Path, digits_test: ImageSet):
    with Connector.open(copied_index) as connector:
        queries = connector.encoder.encode(digits_test.files)
        found = calibrate_by_labels(
            connector, queries, digits_test.labels, digits_test.classes, miss=0.2, confidence=0.9
        )  # fmt: skip
        assert connector.defaults != found.defaults
        network = connector.encoder.checkpoint.digest
    keep_defaults(copied_index, found.defaults, network)
    with Connector.open(copied_index) as connector:
        assert connector.defaults == found.defaults


def test_defaults_are_kept_only_by_the_writer_and_for_the_network_that_was_measured(copied_index: Path, monkeypatch):
    link = copied_index / "connector.json"
    before, defaults = link.read_bytes(), SearchDefaults(0.7, "relevance")
    network = json.loads(before)["sha256"]
    with FaissIndex.open(copied_index) as writer:
        writer.begin()
        with pytest.raises(LockedError, match="is being written to"):
            keep_defaults(copied_index, defaults, network)
    change_link(copied_index, sha256="b" * 64)  # as `sync --reencode` does while an index is calibrated
    with pytest.raises(CheckpointError, match="got another network while it was calibrated"):
        keep_defaults(copied_index, defaults, network)
    assert json.loads(link.read_bytes()) == {**json.loads(before), "sha256": "b" * 64}
    link.write_bytes(before)

    def replaced(place: Path):
        with pytest.raises(LockedError), FaissIndex.open(place) as writer:
            writer.begin()
        return required_link(place)

    monkeypatch.setattr(calibrate, "required_link", replaced)
    keep_defaults(copied_index, defaults, network)
    chosen = {"cutoff": 0.7, "ranking": "relevance", "shortlist": 100}
    assert json.loads(link.read_bytes()) == {**json.loads(before), **chosen}
    link.unlink()
    with pytest.raises(NotAnIndexError, match="does not record which network made it"):
        keep_defaults(copied_index, defaults, network)


def test_the_command_shows_what_it_chose_and_keeps_it(copied_index: Path, digits_test: ImageSet):
    folder = Path(digits_test.files[0]).parents[1]
    before = (copied_index / "connector.json").read_bytes()
    shown = semcut("calibrate", copied_index, folder, "--miss", "20%", "--dry-run", cwd=copied_index).stdout
    assert "not kept: --dry-run" in shown
    assert "mAP@10" in shown
    assert (copied_index / "connector.json").read_bytes() == before
    done = json.loads(semcut("calibrate", copied_index, folder, "--miss", 0.2, "--json", cwd=copied_index).stdout)
    info = json.loads(semcut("info", copied_index, "--json", cwd=copied_index).stdout)
    assert info["cutoff of searches that name none"] == done["cutoff"]
    assert info["ranking of searches that name none"] == done["ranking"]
    refused = semcut("calibrate", copied_index, folder, "--miss", "120%", cwd=copied_index, status=2)
    assert "'120%' is no share: give a percentage such as 5%" in refused.stderr
