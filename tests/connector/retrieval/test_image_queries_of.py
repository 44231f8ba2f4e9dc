"""Queries of images: several together, less like others, without their own records, and with results that differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet, class_of
from semcut.indexes import Encodings, InvalidParameterError, expanded_queries, joined_query
from semcut.indexes.errors import DataError
from tests.command import semcut


def ids(hits: list) -> list[int]:
    return [hit.id for hit in hits]


def test_several_images_are_one_query(stored: Path, digits: ImageSet, digits_test: ImageSet) -> None:
    images, less = digits_test.files[:3], digits_test.files[-2:]
    with Connector.open(stored) as connector:
        encode = connector.encoder.encode
        for others in ([], less):
            (found,) = connector.search(images, together=True, less_like=others, k=7)
            query = joined_query(encode(images), encode(others))
            assert found == connector.hits(connector.index.search(query, k=7))[0]
        (alone,) = connector.search(images[:1], together=True)
        assert ids(alone) == ids(connector.search(images[:1])[0])
        pushed = connector.search(images, less_like=less, k=4)
        for place, hits in enumerate(pushed):
            query = joined_query(encode(images)[[place]], encode(less))
            assert hits == connector.hits(connector.index.search(query, k=4))[0]
        assert connector.search([], together=True) == []


def test_results_are_less_like_an_image(stored: Path, digits: ImageSet) -> None:
    one, other = digits.files[0], digits.files[-1]
    assert class_of(one) != class_of(other)
    with Connector.open(stored) as connector:
        away = []
        for less in ([], [other]):
            (hits,) = connector.search([one, other], together=True, k=40, cutoff=None, less_like=less)
            features = connector.index.get(ids(hits)).features
            away.append(np.linalg.norm(features - connector.encoder.encode([other]).features, axis=1).mean())
        assert away[1] > away[0]


def test_own_records_are_left_out(stored: Path, digits: ImageSet, digits_test: ImageSet) -> None:
    images = [digits.files[5], digits_test.files[0], digits.files[900]]
    with Connector.open(stored) as connector:
        plain = connector.search(images, k=6)
        found = connector.search([*images, Image.open(images[0])], k=5, exclude_self=True)
        assert ids(plain[0])[0] == connector.ids_of(images)[0]
        assert ids(found[0]) == ids(plain[0])[1:]
        assert ids(found[1]) == ids(plain[1])[:5]
        assert ids(found[2]) == ids(plain[2])[1:]
        assert ids(found[3]) == ids(plain[0])[:5]  # a picture has no record
        own = connector.ids_of([images[0], images[2]])
        options = {"together": True, "cutoff": None}
        for diversity in (0.0, 0.5):
            (joined,) = connector.search(images, k=10, exclude_self=True, diversity=diversity, **options)
            assert len(joined) == 10
            assert not set(own.tolist()) & set(ids(joined))
        (every,) = connector.search(images, k=10**6, shortlist=None, exclude_self=True, **options)
        assert len(every) == len(connector.index) - 2


def test_a_query_of_several_images_is_searched_among_the_other_records(stored: Path, digits: ImageSet) -> None:
    """Also where own records are not in the shortlist, which then has other records in their places."""
    with Connector.open(stored) as connector:
        for image in digits.files[::90]:
            for shortlist in (1, 2, 5, 20):
                options = {"k": min(3, shortlist), "cutoff": 0.0, "shortlist": shortlist, "exclude_self": True}
                (alone,), (together,) = (
                    connector.search([image], together=value, **options) for value in (False, True)
                )
                assert ids(alone) == ids(together)
                pair = [image, digits.files[7]]
                (found,) = connector.search(pair, together=True, **options)
                others = np.setdiff1d(connector.index.ids(), connector.ids_of(pair))
                (expected,) = connector.search(pair, together=True, among=others, **{**options, "exclude_self": False})
                assert ids(found) == ids(expected)


def test_results_differ_from_one_another(stored: Path, digits: ImageSet) -> None:
    with Connector.open(stored) as connector:
        (plain,), (diverse,) = (connector.search(digits.files[:1], k=8, diversity=value) for value in (0.0, 0.8))
        assert ids(plain)[0] == ids(diverse)[0]

        def spread(hits: list) -> float:
            features = connector.index.get(ids(hits)).features
            return float(np.linalg.norm(features[:, None] - features[None], axis=2).mean())

        assert spread(diverse) > spread(plain)


def test_one_image_of_several_that_cannot_be_read_is_named(stored: Path, digits: ImageSet, tmp_path: Path) -> None:
    images = [digits.files[0], str(tmp_path / "gone.png"), digits.files[1]]
    skipped: list[tuple[str, str]] = []
    with Connector.open(stored) as connector:
        found = connector.search(images, together=True, skipped=skipped)
        assert found == connector.search([images[0], images[2]], together=True)
        assert [image for image, _ in skipped] == [images[1]]
        assert connector.search(images[1:2], together=True, skipped=skipped) == [[]]
        with pytest.raises(DataError, match=r"gone\.png"):
            connector.search(images, together=True)
        with pytest.raises(DataError, match=r"gone\.png"):
            connector.search(images[:1], less_like=images[1:2], skipped=skipped)
        with pytest.raises(InvalidParameterError, match="together = 1, expected True or False"):
            connector.search(images, together=1)
        with pytest.raises(DataError, match="expected a list of images"):
            connector.search(images, less_like=Image.new("RGB", (8, 8)))


def test_the_command_joins_images(stored: Path, digits: ImageSet, tmp_path: Path) -> None:
    images = digits.files[0], digits.files[1]
    with Connector.open(stored) as connector:
        (expected,) = connector.search(images, k=3, together=True, less_like=digits.files[-1:], exclude_self=True)
    options = ("--together", "--less-like", digits.files[-1], "--exclude-self", "-k", 3)
    done = semcut("search", stored, *images, *options, "--json", "--picture", "hits.png", cwd=tmp_path)
    (answer,) = json.loads(done.stdout)
    assert answer["images"] == list(images)
    assert [hit["id"] for hit in answer["hits"]] == ids(expected)
    assert (tmp_path / "hits.png").is_file()
    done = semcut("search", stored, images[0], "gone.png", "--together", "--diversity", 0.3, cwd=tmp_path, status=1)
    assert "skipped gone.png" in done.stderr
    assert Path(images[0]).name in done.stdout
    assert "0<=x<1" in semcut("search", stored, images[0], "--diversity", 1, cwd=tmp_path, status=2).stderr


def test_a_query_is_averaged_with_its_first_results(stored: Path, digits: ImageSet, digits_test: ImageSet) -> None:
    images = [*digits_test.files[::90], digits.files[0]]
    with Connector.open(stored) as connector:
        encoded = connector.encoder.encode(images)
        first = connector.index.search(encoded, k=4, cutoff=0.3, ranking="fused")
        wanted = connector.index.search(
            expanded_queries(connector.index, encoded, first), k=6, cutoff=0.3, ranking="fused"
        )
        found = connector.search(images, k=6, cutoff=0.3, ranking="fused", expand=4)
        assert [ids(hits) for hits in found] == wanted.ids.tolist()
        assert found != connector.search(images, k=6, cutoff=0.3, ranking="fused")
        (alone,) = connector.search(images[-1:], k=6, expand=4, exclude_self=True)
        own = int(connector.ids_of(images[-1:])[0])
        assert own not in ids(alone)
        record = connector.index.get([own])
        queries = connector.encoder.encode(images[-1:])
        queries = Encodings(probabilities=queries.probabilities, codes=queries.codes, features=queries.features,
                            ids=record.ids)  # fmt: skip
        others = connector.index.search(queries, k=4, exclude_self=True)
        expanded = expanded_queries(connector.index, queries, others)
        assert ids(alone) == connector.index.search(expanded, k=6, exclude_self=True).ids[0].tolist()
        assert len(connector.search(images[:2], k=3, expand=200, shortlist=10)[0]) == 3  # more than the shortlist
        with pytest.raises(InvalidParameterError, match="expand = -1, expected an integer from 0 to 1000"):
            connector.search(images, expand=-1)
