"""Reading and writing connector.json; damaged or missing files give None, not an error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semcut.connector.data.model_file import encoding_digest
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.model_link import (
    LINK,
    ModelDescription,
    ModelLink,
    change_link,
    network_classes,
    network_of,
    read_content,
    read_description,
    read_link,
    required_link,
    write_link,
)
from semcut.connector.retrieval.search_defaults_of import STANDARD, SearchDefaults
from semcut.indexes import NotAnIndexError

DIGEST = "ab" * 32


def test_the_file_on_disk_is_connector_json(tmp_path: Path) -> None:
    write_link(tmp_path, model=tmp_path / "model", sha256="ab", head="paper", binarisation="mean")
    content = json.loads((tmp_path / "connector.json").read_text())
    assert content == {
        "model": str(tmp_path / "model"),
        "beside": "model",
        "sha256": "ab",
        "head": "paper",
        "binarisation": "mean",
    }
    assert [file.name for file in tmp_path.iterdir()] == [LINK]


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_link(tmp_path, model="model", sha256="ab", head="paper", binarisation="mean")
    assert read_link(tmp_path) == ModelLink(tmp_path / "model", "ab")


def test_an_index_keeps_the_defaults_of_its_searches(tmp_path: Path) -> None:
    named = {"model": "model", "sha256": "ab", "head": "paper", "binarisation": "mean"}
    write_link(tmp_path, **named, cutoff=0.03, ranking="fused")
    link = read_link(tmp_path)
    assert link is not None
    assert link.defaults == SearchDefaults(0.03, "fused")
    content = read_content(tmp_path)
    assert content is not None
    write_link(tmp_path, **content)
    assert read_link(tmp_path) == link
    for wrong in ({"cutoff": 1, "ranking": "best"}, {"cutoff": -0.1, "ranking": ["fused"]}, {"cutoff": "x"}):
        change_link(tmp_path, **{"ranking": None, **wrong})
        assert required_link(tmp_path).defaults == STANDARD


def test_an_index_of_a_connector_names_its_network(stored: Path, model: Checkpoint) -> None:
    assert read_link(stored) == ModelLink(model.path, model.digest)
    classes = model.net.architecture.classes
    assert read_description(model.path) == ModelDescription(classes, model.digest)
    assert network_classes(stored) == classes


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"model": 3}', "\xff"])
def test_a_link_that_names_no_network_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / LINK).write_text(content, encoding="latin-1")
    assert read_link(tmp_path) is None
    assert network_classes(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        None, "", "[]", "{}", '{"architecture": []}', '{"architecture": {"classes": 3}}', '{"sha256": "ab"}',
        '{"semcut_model": 2, "sha256": "' + DIGEST + '", "architecture": {"classes": ["dog"]}}',
        '{"semcut_model": 2, "architecture": {"classes": ["dog", "cat"]}}',
        '{"semcut_model": 9, "sha256": "' + DIGEST + '", "architecture": {"classes": ["dog", "cat"]}}',
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_used_is_none(tmp_path: Path, content: str | None) -> None:
    (tmp_path / LINK).write_text(json.dumps({"model": str(tmp_path)}))
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    assert read_description(tmp_path) is None
    assert network_classes(tmp_path) is None


def test_the_digest_of_a_link_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / LINK).write_text(json.dumps({"model": str(tmp_path)}))
    digest = hashlib.sha256(b"weights").hexdigest()
    content = {"semcut_model": 2, "sha256": digest, "architecture": {"classes": ["dog", "cat"]}}
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert read_link(tmp_path) == ModelLink(tmp_path, None)
    assert read_description(tmp_path) is None  # a description alone could have any digest
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert read_description(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert read_description(tmp_path) == ModelDescription(("dog", "cat"), digest)
    assert network_classes(tmp_path) == ("dog", "cat")


def test_edited_class_names_are_not_shown(model: Checkpoint, tmp_path: Path) -> None:
    content = json.loads((model.path / "model.json").read_text())
    content["architecture"]["classes"].reverse()
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert read_description(tmp_path) is None
    write_link(tmp_path, model=tmp_path, sha256=model.digest, head="paper", binarisation="mean")
    assert network_classes(tmp_path) is None
    content["sha256"] = encoding_digest(content)
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert network_classes(tmp_path) is None  # it is consistent, but not the network that made the index


def test_a_link_is_a_small_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LINK)
    assert read_link(tmp_path) is None
    (tmp_path / LINK).unlink()
    (tmp_path / LINK).symlink_to("/dev/zero")
    assert read_link(tmp_path) is None
    (tmp_path / LINK).unlink()
    (tmp_path / LINK).write_text(json.dumps({"model": "x" * 100_000}))
    assert read_link(tmp_path) is None


def test_torch_is_not_loaded() -> None:
    code = "import sys, semcut.connector.retrieval.model_link; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torch_need_not_be_installed() -> None:
    code = "import sys; sys.modules['torch'] = None; import semcut.connector.retrieval.model_link"
    hidden = (
        "import importlib.util as u; real = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'torch' else real(name, *rest); "
    )
    assert subprocess.run([sys.executable, "-c", hidden + code], check=False).returncode == 0


def test_a_root_is_read_and_written_once(tmp_path: Path):
    (tmp_path / LINK).write_text(json.dumps({"model": "/m", "roots": ["/b"] * 8000 + ["/a", "/b", "", 3]}))
    link = read_link(tmp_path)
    assert link is not None
    assert link.roots == ("/b", "/a")
    write_link(tmp_path, model="/m", sha256="0", head="h", binarisation="b", roots=["/b", "/a"] * 20_000)
    assert read_link(tmp_path) == ModelLink(Path("/m"), "0", ("/b", "/a"))


@pytest.mark.parametrize("root", [3, None, "", "photos", "/", "//", "/a\0b", "/\ud800", ["/photos"]])
def test_a_root_that_no_folder_can_have_is_none(root: object, tmp_path: Path) -> None:
    (tmp_path / LINK).write_text(json.dumps({"model": "/m", "root": root, "beside": root}))
    link = read_link(tmp_path)
    assert link is not None
    assert link.root is None
    (tmp_path / LINK).write_text(json.dumps({"model": "/m", "root": "/photos/x/../"}))
    link = read_link(tmp_path)
    assert link is not None
    assert link.root == "/photos"


def test_a_network_is_looked_for_where_it_was_and_beside_the_index(model: Checkpoint, tmp_path: Path) -> None:
    index, net = tmp_path / "one" / "index", Path(shutil.copytree(model.path, tmp_path / "one" / "net"))
    index.mkdir()
    write_link(index, model=net, sha256=model.digest, head="h", binarisation="b")
    assert network_of(index, required_link(index)) == net
    (tmp_path / "one").rename(tmp_path / "two")
    index = tmp_path / "two" / "index"
    net.mkdir(parents=True)
    (net / "model.json").write_text("{}")  # another one is there now
    assert os.path.samefile(network_of(index, required_link(index)), tmp_path / "two" / "net")
    assert network_classes(index) == model.net.architecture.classes
    shutil.rmtree(tmp_path / "two" / "net")
    assert network_of(index, required_link(index)) == net
    with pytest.raises(NotAnIndexError, match="does not record"):
        required_link(tmp_path)
