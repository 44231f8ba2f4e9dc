"""Every public function for images, called with every kind of wrong value: one sentence of semcut, nothing left.

The functions are found by walking the public names, so a new one is called too. A parameter of a new name needs a valid
value below, and an object of a new class one on which its methods are called.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import shutil
import types
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semcut import connector
from semcut.connector import (
    AdoptionChoices,
    Architecture,
    Checkpoint,
    Connector,
    Encoder,
    Hit,
    ImageSet,
    SemanticHashNet,
    TrainConfig,
    train,
)
from semcut.connector.data.labels import RecordLabels
from semcut.connector.data.protocols import Protocol, ProtocolSplit
from semcut.connector.data.sources import load
from semcut.connector.evaluation.evaluate import ClassFigures, Evaluation
from semcut.connector.evaluation.rankings import Comparison, RankingFigures, compare
from semcut.indexes import (
    CheckpointError,
    ClosedIndexError,
    DataError,
    FaissIndex,
    IndexExistsError,
    InvalidEncodingsError,
    InvalidParameterError,
    LockedError,
    SemcutError,
)
from semcut.indexes.storage.directory import MARK
from tests.indexes.test_wrong_values import WRONG
from tests.thorough import THOROUGH

MODULES = ("data.labels", "data.protocols", "data.sources", "evaluation.evaluate", "evaluation.hash_code_quality",
           "evaluation.metrics", "evaluation.rankings", "ground_truth.read_truth")  # fmt: skip
"""Rooms of `semcut.connector` whose public functions programs call by the names of the modules."""

RESULTS = (Hit, Evaluation, ClassFigures, Comparison, RankingFigures, Protocol, ProtocolSplit)
"""What functions return: plain tuples of values, which only they make, so that they are not checked again."""


def half_a_picture() -> Image.Image:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    return Image.open(io.BytesIO(stream.getvalue()[:900]))


MORE: list[Any] = [
    [None], [b"3"], ["3", None], [Path("none")], [Path("none"), 3], {"a"}, {"a": 1}, iter(["none"]), ("a", "a"),
    "\ud800", ["a", "\ud800"], ["a", ""], ["a", "b" * 2000], "x" * 300, "x" * 5000, ["x" * 300], Path("a\0b"), ["a\0b"],
    np.zeros((4, 4, 3), np.uint8), [np.zeros((4, 4, 3), np.uint8)], np.array(["none"]), Image.new("L", (8, 8)),
    [half_a_picture()], half_a_picture(), [[]], [-1], [10**9], [True, False], np.array([0.5]), [0, -1], range(3),
    (0.5,), [b"3"] * 30, np.array([2**63], np.uint64), types.SimpleNamespace(), torch.zeros(0), [("a", "b")],
    [torch.zeros(1)],
    {"a": torch.zeros(1)}, {1: torch.zeros(1)}, {"a": object()}, {"a": float("nan")}, {None: 1, "a": 2},
]  # fmt: skip
FOR_ONE: dict[str, list[Any]] = {
    "device": ["meta", "cuda:99", "cpu:7", "gpu", torch.device("meta"), torch.device("cpu")],
    "source": [
        "torchvision:", "torchvision:VisionDataset", "torchvision:FakeData/../../x", "torchvision:folder",
        "digits/none", "digits/../..", "none/../none", "~nobody/x",
    ],
}  # fmt: skip
"""Values of parameters of one name."""


@pytest.fixture(scope="module")
def given(model: Checkpoint, digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Valid values by the names of parameters, or of functions and parameters; and what is called, by class."""
    place = tmp_path_factory.mktemp("given")
    few, empty = digits.sample(30), place / "empty"
    empty.mkdir()
    with Connector.create(place / "index", model.path) as made:
        made.add_files(few.files)
    opened, encoder = Connector.open(place / "index"), Encoder(model)
    batch = encoder.encode(few.files)
    layers = model.net.backbone_outputs(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    labels = opened.labels(digits.classes)
    ranked = np.array([[1, 0]])
    yield {
        "place": place,
        "instances": {
            Architecture: model.net.architecture, Checkpoint: model, Connector: opened, Encoder: encoder,
            ImageSet: few, RecordLabels: labels, SemanticHashNet: model.net, TrainConfig: TrainConfig(),
            Comparison: compare(batch, few.labels, batch, few.labels, opened.index.config, ks=(3,)),
        },
        **TrainConfig(epochs=1).model_dump(), **model.net.architecture.model_dump(),
        **{f"AdoptionChoices.{name}": value for name, value in AdoptionChoices().model_dump().items()},
        "network": "tests.connector.adoption.networks:blocks", "labelled": few,
        "choices": AdoptionChoices(image_size=32),
        "path": "new", "model": model.path, "device": "cpu", "engine": "auto", "roots": (), "progress": None,
        "resume": False, "copies": True, "dry_run": True, "root": None, "folder": empty, "start": None, "weights": None,
        "keep_network": False, "config": TrainConfig(epochs=1, device="cuda:99"),
        "architecture": model.net.architecture, "images": [few.files[0]], "files": [few.files[0]], "skipped": None,
        "k": 3, "cutoff": 0.2, "shortlist": 10, "ranking": "distance", "fill": True, "first_id": 0,
        "exclude_self": False, "diversity": 0.0, "together": False, "less_like": (), "expand": 0,
        "part": "test",
        "batch_size": 8, "workers": 1,
        "checkpoint": model, "encoder": encoder, "index": opened.index, "result": opened.index.search(batch, k=2),
        "net": model.net, "digest": "0", "training": {}, "digests": None, "labels": few.labels, "ids": labels.ids,
        "uri": few.files[0], "positions": [0], "count": 3, "seed": 0, "fraction": 0.5, "step": 0, "steps": 3,
        "layers": layers, "logits": torch.zeros(2, 10), "source": "digits/test", "name": "cifar10-2",
        "record_labels": labels, "queries": batch, "query_labels": few.labels, "records": batch, "ks": (1, 3),
        "cutoffs": (0.2,), "codes": batch.codes, "probabilities": batch.probabilities.astype(float),
        "right": ranked, "every": np.array([[2, 3]]), "relevant": np.array([1]),
        "trained": [], "indexed": [], "expected": ProtocolSplit(few, few, few),
        "Checkpoint.load.path": model.path, "Connector.open.path": place / "index",
        "Encoder.encode_readable.skipped": [], "read": lambda size: np.zeros((3, size, size), np.uint8),
        "train.images": few, "Checkpoint.save.weights": model.net.state_dict(), "ImageSet.skipped": (),
        "SemanticHashNet.forward.images": torch.zeros(2, 3, 16, 16), "Connector.add_files.files": [],
        "SemanticHashNet.backbone_outputs.images": torch.zeros(2, 3, 16, 16), "ImageSet.files": few.files,
        "average_precision.right": ranked > 0, "trapezoid_average_precision.right": ranked > 0, "form": "ukbench",
        "trapezoid": False,
        "read_ground_truth.source": None, "read_ground_truth.files": [f"ukbench0000{n}.jpg" for n in range(4)],
 "RecordLabels.labels": labels.labels, "label_sets": None,
        "labels_of_images.images": few, "where": None, "among": None, "attributes": {},
        "keys": None, "Connector.create.string_ids": True, "list_images.ids": False,
        "compare.config": opened.index.config,
        "Connector.index": FaissIndex.create(None, encoder.index_config()),
        "code_average_precision.queries": batch.codes, "hamming_all_pairs.queries": batch.codes,
    }  # fmt: skip
    opened.close()


def public_functions() -> list[tuple[str, Callable[..., Any], type | None]]:
    """Return every public function, with the class if it is to be called on an instance of it."""
    found: list[Any] = [getattr(connector, name) for name in connector.__all__]
    for name in MODULES:
        module = import_module(f"semcut.connector.{name}")
        members = [member for key, member in vars(module).items() if not key.startswith("_")]
        found += [member for member in members if getattr(member, "__module__", "") == module.__name__]
    found = [member for member in found if callable(member) and not member.__name__.endswith("_given")]  # the checks
    functions: list[tuple[str, Callable[..., Any], type | None]] = []
    for one in dict.fromkeys(found):
        if not inspect.isclass(one):
            functions.append((one.__qualname__, one, None))
            continue
        if one not in RESULTS:
            functions.append((one.__name__, one, None))
        for name, member in vars(one).items():
            if name.startswith("_") and name != "__getitem__":
                continue
            if isinstance(member, classmethod | staticmethod) and one not in RESULTS:
                functions.append((f"{one.__name__}.{name}", getattr(one, name), None))
            elif inspect.isfunction(member):
                functions.append((f"{one.__name__}.{name}", member, one))
    return [one for one in functions if names_of(one[1])]


def names_of(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def contents(*places: Path) -> dict[str, str]:
    """Return the digests of all files but locks, which name the last writer."""
    files = [file for place in places for file in place.rglob("*") if file.is_file() and file.name != "lock"]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def finish(done: Any) -> None:
    """Run what a function has only begun, and close what it has opened."""
    if inspect.isgenerator(done):
        for _ in done:
            pass
    if isinstance(done, Connector):
        done.close()


def test_public_functions_are_found() -> None:
    names = {name for name, _, _ in public_functions()}
    expected = {"Connector", "Connector.add_files", "Connector.create", "Encoder.encode", "ImageSet.split", "train"}
    assert names >= {*expected, "Architecture", "Checkpoint.load", "SemanticHashNet.forward", "load", "evaluate"}


@pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")
@pytest.mark.parametrize(("name", "function", "kind"), [pytest.param(*one, id=one[0]) for one in public_functions()])
def test_a_wrong_value_is_one_sentence_of_semcut(
    name: str, function: Callable[..., Any], kind: type | None, given: dict[str, Any], model: Checkpoint,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments = {one: given[f"{name}.{one}" if f"{name}.{one}" in given else one] for one in names_of(function)}
    if kind is not None:
        function = function.__get__(given["instances"][kind])
    before, foreign = contents(given["place"], model.path), []
    for place, argument in enumerate(arguments):
        values = [*WRONG, *MORE]
        for value in [*(values if THOROUGH else values[place % 2 :: 2]), *FOR_ONE.get(argument, [])]:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    finish(function(**{**arguments, argument: value}))
            except SemcutError as error:
                if "\n" in str(error) or len(str(error).replace(str(value), "")) > 400:
                    foreign.append((argument, repr(value)[:40], str(error)))
                if left := list(tmp_path.iterdir()):
                    foreign.append((argument, repr(value)[:40], f"left {left}"))
            except Exception as error:
                foreign.append((argument, repr(value)[:40], repr(error)[:200]))
            for left in tmp_path.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    assert foreign == []
    assert contents(given["place"], model.path) == before


@pytest.fixture
def few(digits: ImageSet) -> ImageSet:
    return digits.sample(20)


def test_paths_are_taken_wherever_files_are(model: Checkpoint, few: ImageSet, tmp_path: Path) -> None:
    """Lists, generators and arrays of paths; uris are strings."""
    paths = [Path(file) for file in few.files]
    with Connector.create(tmp_path / "index", str(model.path), roots=[Path(few.roots[0])]) as connector:
        for files in (paths[:5], iter(paths[5:10]), np.array(few.files[10:15]), (path for path in paths[15:])):
            assert connector.add_files(files).added == 5
        assert connector.paths(connector.index.ids()) == list(few.files)
        assert connector.roots == few.roots
        expected = connector.search(few.files[:3], k=2)
        for images in (
            paths[:3],
            iter(paths[:3]),
            np.array(few.files[:3]),
            [paths[0], *map(Image.open, few.files[1:3])],
        ):
            assert connector.search(images, k=2) == expected
        assert [hits[0].uri for hits in expected] == list(few.files[:3])
        encodings = [part.encodings for part in connector.encoder.encode_files(iter(paths))]
        assert [uri for part in encodings for uri in part.uris or ()] == list(few.files)
    assert few.without(set(paths[1:])).files == few.files[:1]
    assert load(Path("digits") / "test").files == load("digits/test").files
    again = ImageSet(paths, few.labels.tolist(), list(few.classes), roots=[tmp_path])  # type: ignore[arg-type]
    assert (again.files, again.classes, again.roots) == (few.files, few.classes, (str(tmp_path),))
    np.testing.assert_array_equal(again.labels, few.labels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.png", "put it in brackets"),
        (Path("a.png"), "put it in brackets"),
        (None, "images = None, expected a list of images"),
        ({"a.png"}, "a set has no order"),
        ([None], r"images\[0\] = None, expected the path of a file or a picture of Pillow"),
        (["a.png", b"b.png"], r"images\[1\] = b'b.png', expected the path"),
        ([np.zeros((8, 8, 3), np.uint8)], r"images\[0\] = .*PIL.Image.fromarray makes"),
        ([half_a_picture()], "cannot read the image: broken image"),
    ],
)
def test_an_error_names_the_image(images: Any, message: str, model: Checkpoint) -> None:
    skipped: list[tuple[str, str]] = []
    with Connector.create(None, model.path) as connector:
        for call in (connector.search, connector.encoder.encode):
            with pytest.raises(DataError, match=message):
                call(images)
        if "Pillow" in message or "brackets" in message:
            with pytest.raises(DataError, match=message):
                connector.search(images, skipped=skipped)
    assert skipped == []


def test_positions_are_integers(few: ImageSet) -> None:
    """A mask would select the first two images again and again, and a number would be cut to an integer."""
    for positions in (np.ones(20, bool), [0.5], [-1], [20], "0", None):
        with pytest.raises((InvalidParameterError, InvalidEncodingsError)):
            few.subset(positions)
    assert few.subset(np.array([3, 1], np.uint8)).files == (few.files[3], few.files[1])
    assert few.subset([]).files == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": [0]}, {"labels": [0, 2]}, {"labels": [0, -1]}, {"labels": [0.0, 1.0]}, {"labels": None},
        {"files": "ab"},
        {"classes": ("a", "a")}, {"classes": "ab"}, {"roots": "/"}, {"digests": [b"x", b"x"]},
        {"digests": [bytes(16)]}, {"skipped": ["a.png"]},
    ],
)  # fmt: skip
def test_images_that_do_not_fit_their_classes_are_refused(wrong: dict[str, Any]) -> None:
    fitting: dict[str, Any] = {"files": ("a.png", "b.png"), "labels": np.array([0, 1]), "classes": ("a", "b")}
    assert len(ImageSet(**fitting, digests=(bytes(16),) * 2)) == 2
    with pytest.raises(SemcutError, match=f"^{next(iter(wrong))}"):
        ImageSet(**{**fitting, **wrong})


@pytest.mark.parametrize(
    "classes", [("a", "a"), ("a", ""), ("a", "\ud800"), ("a", "b" * 2000), ("a",), "ab", {"a", "b"}]
)
def test_names_that_a_checkpoint_cannot_keep_are_refused(classes: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"^classes(\[1\])? = "):
        Architecture(classes=classes)


@pytest.mark.parametrize(
    "settings", [{"epochs": "3"}, {"epochs": True}, {"learning_rate": "1"}, {"freeze": "no"}, {"calibrate": 1}]
)
def test_a_setting_is_not_read_as_another_type(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match=r"expected (a number|True or False)"):
        TrainConfig(**settings)


@pytest.mark.parametrize("name", ["file/model", "x" * 300, "locked/model"])
def test_a_directory_that_cannot_be_made_is_one_sentence(
    name: str, few: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").symlink_to("/proc/self")
    with pytest.raises(CheckpointError, match=r"cannot be used: (Not a directory|File name too long|No such file)"):
        train(few, architecture, TrainConfig(epochs=1), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "locked"]


def test_a_path_to_a_folder_above_leaves_no_folder(model: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(IndexExistsError):
        Connector.create(tmp_path / "new" / "deep" / ".." / ".." / "..", model.path)
    assert list(tmp_path.iterdir()) == []


def test_more_roots_than_are_read_again_are_refused(model: Checkpoint, tmp_path: Path) -> None:
    roots = [f"/photos/{number:0200d}" for number in range(400)]
    with pytest.raises(DataError, match=r"400 roots make connector\.json"):
        Connector.create(tmp_path / "index", model.path, roots=roots)
    assert list(tmp_path.iterdir()) == []
    Connector.create(tmp_path / "index", model.path, roots=roots[:100]).close()


def test_adding_that_has_not_begun_leaves_no_mark(model: Checkpoint, few: ImageSet, tmp_path: Path) -> None:
    """Neither to a closed index, nor to one that another has locked."""
    writer = Connector.create(tmp_path / "index", model.path)
    writer.add_files(few.files[:5])
    with Connector.open(tmp_path / "index") as other:
        with pytest.raises(LockedError):
            other.add_files(few.files[5:])
        assert not (tmp_path / "index" / MARK).exists()
        writer.close()
        with pytest.raises(ClosedIndexError):
            writer.add_files(few.files[5:])
        assert not (tmp_path / "index" / MARK).exists()
        assert other.add_files(few.files[5:]).added == 15
