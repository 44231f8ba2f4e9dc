"""Uris become paths below the root of an index only if they are plain, and paths below the root become such uris."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.connector.data.image_uris import below_root, canonical_uri, common_root, path_of, paths_of, uri_of

ROOT = "/photos/2024"


@pytest.mark.parametrize("uri", ["a.jpg", "cats/1.jpg", "...", "a/..b", ".hidden/x", "ä/\n.png", "a\\b", "~"])
def test_a_plain_uri_is_below_the_root(uri: str) -> None:
    assert path_of(uri, ROOT) == f"{ROOT}/{uri}"
    assert uri_of(f"{ROOT}/{uri}", ROOT) == canonical_uri(f"{ROOT}/{uri}", ROOT) == uri
    assert path_of(uri, None) == uri


@pytest.mark.parametrize(
    "uri",
    ["", "..", "../x", "a/../b", "a/..", "/etc/passwd", "//x", "a//b", "a/", "./a", "a/./b", "s3://bucket/x.jpg",
     "http://x/../y", "a\0b", "\0", "..\n/x/../y", None],
)  # fmt: skip
def test_any_other_uri_stays_as_it_is(uri: str | None) -> None:
    assert path_of(uri, ROOT) == uri
    assert paths_of([uri, "x"], ROOT) == [uri, f"{ROOT}/x"]
    if uri is not None:
        assert canonical_uri(uri, ROOT) == uri
        assert canonical_uri(f"{ROOT}/{uri}", ROOT) == f"{ROOT}/{uri}"


@given(st.text(st.sampled_from("a./\0é"), max_size=12))
def test_no_uri_leads_out_of_the_root_that_did_not_before(uri: str) -> None:
    path = path_of(uri, ROOT)
    assert path is not None
    if path != uri:
        assert os.path.normpath(path) == path
        assert path.startswith(f"{ROOT}/")
        assert uri_of(path, ROOT) == uri


def test_a_relative_path_begins_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cats").mkdir()
    monkeypatch.chdir(tmp_path / "cats")
    root = os.path.realpath(tmp_path)
    assert uri_of("1.jpg", root) == uri_of("./1.jpg", root) == "cats/1.jpg"
    assert uri_of("../1.jpg", root) == "1.jpg"
    assert uri_of("1.jpg", "/elsewhere") == f"{root}/cats/1.jpg"
    assert uri_of("../1.jpg", None) == "../1.jpg"


def test_the_root_of_several_folders_is_what_they_have_in_common() -> None:
    assert common_root(["/data/train", "/data/test"]) == "/data"
    assert common_root(["/data/train/"]) == "/data/train"
    for roots in ([], ["data"], ["/a", "/b"], ["/"], ["/a/../b"], ["/a", "b"]):
        assert common_root(roots) is None


@pytest.mark.parametrize("index_by", ["link", "folder"])
def test_a_file_has_one_uri_however_its_folder_is_reached(
    index_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk" / "photos" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "photos" / "b").mkdir()
    (tmp_path / "photos").symlink_to("disk/photos")
    (tmp_path / "elsewhere").mkdir()
    root = str(tmp_path / ("photos" if index_by == "link" else "disk/photos"))
    for folder in ("photos", "disk/photos", "photos/b/..", "disk/photos/a/../../photos"):
        assert uri_of(f"{tmp_path}/{folder}/a/1.png", root) == "a/1.png"
        assert uri_of(f"{tmp_path}/{folder}/1.png", root) == "1.png"
        assert below_root(f"{tmp_path}/{folder}/a", root) == f"{root}/a"
    monkeypatch.chdir(tmp_path / "disk" / "photos" / "b")
    assert uri_of("../a/1.png", root) == "a/1.png"
    assert uri_of("1.png", root) == "b/1.png"
    for other in ("elsewhere", "disk", "photos/../elsewhere"):
        assert uri_of(f"{tmp_path}/{other}/1.png", root) == f"{tmp_path}/{other}/1.png"
