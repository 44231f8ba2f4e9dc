"""One rule for folders: a class is a folder under the root, links are followed, and what is left out is named."""

from __future__ import annotations

import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import image_folders, sources
from semcut.connector.data.image_contents import digests_of, readable_images
from semcut.connector.data.image_folders import HIDDEN, NOT_TEXT, class_of, classes_of, list_folder
from semcut.indexes.errors import DataError, SemcutWarning


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(("cat/1.png", "cat/2021/summer/2.png", "cat/dog/3.png", "dog/4.png")):
        picture(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


def test_images_of_a_class_lie_at_any_depth_for_all_that_ask_for_a_class(root: Path) -> None:
    images = sources.load(str(root))
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1]
    assert list(images.files) == list_folder(root).files
    assert [class_of(file, images.roots) for file in images.files] == ["cat", "cat", "cat", "dog"]
    assert class_of("/elsewhere/bird/5.png", images.roots) == "bird"
    assert class_of(f"{root}/loose.png", images.roots) == "photos"
    assert class_of(f"{root}/cat/x/y/z.png", (str(root), str(root / "cat"))) == "x"
    assert class_of("/cat/x/z.png", ("/",)) == "cat"
    assert class_of(f"{root}s/cat/x/z.png", images.roots) == "x"
    assert class_of(None, images.roots) is None


def test_an_archive_follows_the_same_rule(root: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(root, "photos")
    images = sources.load(f"{tmp_path}/photos.tar/photos")
    assert images.labels.tolist() == [0, 0, 0, 1]
    assert [class_of(file, images.roots) for file in images.files] == ["cat", "cat", "cat", "dog"]


def test_links_are_followed_and_loops_are_named(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "other" / "5.png", 5)
    (root / "dog" / "linked").symlink_to(tmp_path / "other")
    (root / "bird").symlink_to(tmp_path / "other")
    (root / "cat" / "file.png").symlink_to(tmp_path / "other" / "5.png")
    with pytest.warns(SemcutWarning, match=r"1 folders of .* are in two classes.*: .*/dog/linked leads to .*/bird"):
        expected = sources.load(str(root))
    assert np.bincount(expected.labels).tolist() == [1, 4, 2]
    assert expected.skipped == ()
    loops = {
        root / "cat" / "up": root,
        root / "cat" / "2021" / "self": root / "cat" / "2021",
        root / "dog" / "far up": tmp_path.parent,
        root / "all": root,
        root / "dog" / "twice": tmp_path / "other",
    }
    for link, target in loops.items():
        link.symlink_to(target)
    with pytest.warns(SemcutWarning, match="1 folders"):
        found = sources.load(str(root))
    assert found.files == expected.files
    assert found.classes == expected.classes
    assert {file for file, _ in found.skipped} == {str(link) for link in loops}
    assert all("it leads to /" in reason for _, reason in found.skipped)


def test_links_that_double_at_every_step_are_listed_in_no_time(root: Path) -> None:
    for step in range(30):
        folder = root / "cat" / f"step {step}"
        folder.mkdir()
        picture(folder / "a.png")
        for name in ("one", "two"):
            (folder / name).symlink_to(root / "cat" / f"step {step + 1}")
    assert len(list_folder(root).files) == 4 + 30 + 2  # the last two links lead nowhere


def test_a_class_that_links_to_another_is_named(root: Path) -> None:
    (root / "tiger").symlink_to(root / "cat")
    with pytest.warns(SemcutWarning, match=r"4 folders of .* in two classes, .*: .*/tiger leads to .*/cat$"):
        images = sources.load(str(root))
    assert np.bincount(images.labels).tolist() == [3, 1, 3]


@pytest.mark.parametrize("name", ["{}.png", ".{}", "{}/a.png"])
def test_links_that_lead_to_very_many_files_again_are_one_error(
    name, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folders, "MOST_AGAIN", 2000)
    for number in range(50):
        (root / "cat" / name.format(number)).parent.mkdir(exist_ok=True)
        (root / "cat" / name.format(number)).touch()
    for number in range(9):
        (root / f"link {number}").symlink_to("cat")
    assert len(list_folder(root).again) >= 27
    for number in range(9, 50):
        (root / f"link {number}").symlink_to("cat")
    with pytest.raises(DataError, match=r"more than 2,000 files again, such as .*/link .* to those of .*/cat"):
        list_folder(root)


def test_paths_that_take_very_much_memory_are_one_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    length = len(str(root))
    for number in range(20):
        (root / "cat" / f".{'hidden' * 30}{number}").touch()
    monkeypatch.setattr(image_folders, "MOST_AGAIN_BYTES", 22_000 + 140 * length)
    for number in range(9):
        (root / f"link {number}").symlink_to("cat")
    with pytest.raises(DataError, match=r"files again, such as .* or their paths take more than .* bytes: remove"):
        list_folder(root)
    for link in root.glob("link *"):
        link.unlink()
    list_folder(root)
    monkeypatch.setattr(image_folders, "MOST_BYTES", 4000 + 22 * length)
    with pytest.raises(DataError, match=r"the paths of the files in .* take more than .* bytes: give a part"):
        list_folder(root)


def test_characters_of_four_bytes_count_as_what_they_take(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        picture(root / "cat" / f"\U0001f408{number}.png")
    monkeypatch.setattr(image_folders, "MOST_BYTES", 20 * 3 * len(str(root)))
    with pytest.raises(DataError, match=r"the paths of the files in .* take more than .* bytes"):
        list_folder(root)


def test_what_is_left_out_is_named_with_its_reason(root: Path) -> None:
    (root / "readme.txt").write_text("in no class")
    (root / "empty" / "deep").mkdir(parents=True)
    for hidden in (root / ".git", root / "cat" / ".thumbnails"):
        picture(hidden / "x.png")
    picture(root / "dog" / ".hidden.png")
    odd = picture(root / "dog" / os.fsdecode(b"\xff.png"))
    odd_class = picture(root / os.fsdecode(b"\xfe") / "a.png").parent
    images = sources.load(str(root))
    assert images.classes == ("cat", "dog")
    assert set(images.skipped) == {
        (str(root / "empty"), "a folder without images, so it is no class"),
        (str(root / "readme.txt"), "it is in no class folder"),
        (str(odd), NOT_TEXT),
        (str(odd_class), NOT_TEXT),
        *((str(path), HIDDEN) for path in (root / ".git", root / "cat/.thumbnails", root / "dog/.hidden.png")),
    }
    assert images.subset([0]).skipped == images.skipped
    assert list_folder(root).files == [str(root / "readme.txt"), *images.files]


def test_a_folder_that_may_not_be_read_is_named(root: Path) -> None:
    """Root may read every folder, so a test that root runs becomes another user, who may enter the folders above."""
    closed, user = root / "cat" / "2021", os.geteuid()
    above = [] if user else [path for path in (root, *root.parents) if path.stat().st_uid == 0 and path != Path("/")]
    modes = {folder: folder.stat().st_mode for folder in (*above, closed)}
    for folder in modes:
        folder.chmod(modes[folder] | 0o055)
    closed.chmod(0o000)
    try:
        if not user:
            os.seteuid(65534)
        images = sources.load(str(root))
    finally:
        os.seteuid(user)
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert images.skipped == ((str(closed), "Permission denied"),)
    assert len(images) == 3


def test_a_root_whose_path_is_not_text_is_one_error(tmp_path: Path) -> None:
    picture(tmp_path / os.fsdecode(b"\xff") / "cat" / "1.png")
    with pytest.raises(DataError, match="is not valid text"):
        sources.load(str(tmp_path / os.fsdecode(b"\xff")))


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val"), ("Train", "Validation", "test")])
def test_the_parts_of_a_data_set_are_no_classes(parts: tuple[str, ...], tmp_path: Path) -> None:
    for part in parts:
        picture(tmp_path / part / "cat" / "1.png")
    with pytest.raises(DataError, match="are parts of a data set, not classes: give"):
        sources.load(str(tmp_path))


def test_images_that_cannot_be_read_and_classes_without_images_are_left_out(root: Path) -> None:
    (root / "ant").mkdir()
    (root / "ant" / "notes.txt").write_text("no image")
    (root / "cat" / "broken.png").write_bytes((root / "cat" / "1.png").read_bytes()[:60])
    (root / "cat" / "gone.png").symlink_to(root / "nowhere")
    calls: list[tuple[int, int]] = []
    found = readable_images(sources.load(str(root)), progress=lambda done, total, task="": calls.append((done, total)))
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1]
    assert found.digests == tuple(digests_of(found.files))
    assert [Path(name).name for name, _ in found.skipped] == ["notes.txt", "broken.png", "gone.png", "ant"]
    assert dict(found.skipped)["ant"] == "a class of which no image can be read, so it is no class"
    assert calls[-1] == (7, 7)
    (root / "dog" / "4.png").write_text("no image")
    with pytest.raises(DataError, match="images of 1 class can be read, expected at least 2 classes; 4 of 7 images"):
        readable_images(sources.load(str(root)))


def test_a_class_of_which_no_image_was_drawn_is_called_that(root: Path) -> None:
    (root / "elk").mkdir()
    (root / "cat" / "1.png").rename(root / "elk" / "1.png")
    images = sources.load(str(root)).sample(2)
    found = readable_images(images)
    assert len(images.classes) == 3
    assert len(found.classes) == 2
    (left_out,) = set(images.classes) - set(found.classes)
    assert dict(found.skipped)[left_out].startswith("a class of which no image was drawn")
    with pytest.raises(DataError, match=r"that were drawn \(1\) are of 1 class, expected at least 2: choose more"):
        readable_images(images.subset([0]))


def test_a_digest_is_that_of_the_content(root: Path, tmp_path: Path) -> None:
    first = root / "cat" / "1.png"
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    os.utime(copy, (1, 1))
    link = tmp_path / "link.png"
    link.symlink_to(first)
    os.mkfifo(tmp_path / "fifo")
    files = [first, copy, link, root / "dog" / "4.png", tmp_path / "fifo", tmp_path, tmp_path / "no", "a\0b"]
    one, two, three, other, *none = digests_of([str(file) for file in files])
    assert one == two == three != other
    assert none == [None] * 4


def test_thousands_of_roots_cost_no_time_for_each_file():
    """A root is looked for as often as roots have different lengths, and once for each folder, never once a root."""

    class Counted(str):
        looks = 0

        def __getitem__(self, part):
            Counted.looks += 1
            return str.__getitem__(self, part)

        def startswith(self, *start):
            Counted.looks += 1
            return str.startswith(self, *start)

    roots = [f"/r{number}" for number in range(10_000, 26_000)]
    files = [Counted(f"/r{10_000 + number % 5}/cat/{number}.png") for number in range(2000)]
    assert list(classes_of(files, roots)) == ["cat"] * 2000
    assert list(classes_of([Counted(f"/b/{number}.png") for number in range(2000)], ["a"] * 16_000)) == ["b"] * 2000
    assert Counted.looks < 100


def test_the_class_of_a_file_is_the_same_alone_and_among_others():
    generator = random.Random(0)

    def path(longest: int) -> str:
        return "".join(generator.choices("/ab.", k=generator.randint(1, longest)))

    for _ in range(2000):
        roots, files = [path(5) for _ in range(3)], [path(10) for _ in range(5)]
        expected = []
        for file in files:  # as the docstring says it
            starts = [start for root in roots if file.startswith(start := root.rstrip("/") + "/")]
            below = [file[len(start) :] for start in sorted(starts, key=len, reverse=True)]
            deep = [rest.partition("/")[0] for rest in below if "/" in rest]
            expected.append(deep[0] if deep else Path(file).parent.name)
        assert list(classes_of([*files, None], roots)) == [*expected, None]
        assert [class_of(file, roots) for file in files] == expected
