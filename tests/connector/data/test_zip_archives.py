"""Zip archives that mean harm: as for tar, nothing outside of the target is touched, and every limit is checked."""

from __future__ import annotations

import io
import random
import stat
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from semcut.connector.data import archive_members, archives, source_folders, sources, zip_archives
from semcut.connector.data.archives import unpack
from semcut.indexes.errors import DataError, SemcutWarning
from tests.command import semcut

Entry = tuple[str, int, bytes]
"""Name, mode of Unix, and content or target of a link."""


def zipped(*entries: Entry, method: int = zipfile.ZIP_DEFLATED, system: int = 3) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a name occurs twice
        for name, mode, content in entries:
            record = zipfile.ZipInfo(name)
            record.external_attr, record.compress_type, record.create_system = mode << 16, method, system
            archive.writestr(record, content)
    return buffer.getvalue()


def file(name: str, content: bytes = b"content") -> Entry:
    return name, stat.S_IFREG | 0o644, content


def directory(name: str) -> Entry:
    return f"{name}/", stat.S_IFDIR | 0o755, b""


def special(name: str, kind: int, content: bytes = b"target") -> Entry:
    return name, kind | 0o777, content


def extract(content: bytes, target: Path) -> list[str]:
    """Unpack into a folder beside nothing else; return the paths of all files."""
    unpack(io.BytesIO(content), Path("a.zip"), target)
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_ordinary_archives_are_unpacked(method: int, tmp_path: Path) -> None:
    long = f"a/{'x' * 90}/{'y' * 90}.png"
    content = zipped(
        directory("a"), file("./a/b.png", b"1"), file(long, b"22" * 999_999), file("c/é.png"), method=method
    )
    assert extract(content, tmp_path / "t") == sorted(["a/b.png", long, "c/é.png"])
    assert (tmp_path / "t" / long).read_bytes() == b"22" * 999_999


def test_an_archive_without_members_and_one_with_a_comment_are_archives(tmp_path: Path) -> None:
    assert extract(zipped(), tmp_path / "empty") == []
    content = io.BytesIO(zipped(file("a")))
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = b"holiday" * 100
    assert extract(content.getvalue(), tmp_path / "t") == ["a"]


def test_a_source_can_be_a_folder_in_a_zip_archive(tmp_path: Path, cache: Path) -> None:
    entries = []
    for number, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png"]):
        picture = io.BytesIO()
        Image.new("RGB", (4, 4), (number, 0, 0)).save(picture, "png")
        entries.append(file(f"train/{name}", picture.getvalue()))
    (tmp_path / "photos.zip").write_bytes(zipped(*entries))
    images = sources.load(f"{tmp_path}/photos.zip/train")
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1]
    assert Path(images.files[0]).is_relative_to(cache)
    assert [path.name for path in source_folders.source_folder(tmp_path / "photos.zip").root.iterdir()] == ["train"]


def test_files_keep_their_time_and_lose_their_rights(tmp_path: Path) -> None:
    record = zipfile.ZipInfo("a.png", (2001, 9, 9, 1, 46, 40))
    record.external_attr = (stat.S_IFREG | 0o6777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(record, b"x")
    extract(buffer.getvalue(), tmp_path / "t")
    status = (tmp_path / "t" / "a.png").stat()
    assert status.st_mtime == time.mktime((2001, 9, 9, 1, 46, 40, 0, 0, -1))
    assert status.st_mode & 0o7111 == 0


def test_names_of_macos_and_windows_are_kept(tmp_path: Path) -> None:
    unmarked = zipped(file("a/Xé.png"))
    for place in (unmarked.index(b"PK\1\2") + 9, unmarked.index(b"PK\3\4") + 7):
        unmarked = unmarked[:place] + b"\0" + unmarked[place + 1 :]  # no mark of UTF-8
    assert extract(unmarked, tmp_path / "macos") == ["a/Xé.png"]
    code_page = unmarked.replace("é".encode(), b"\x82e")
    assert extract(code_page, tmp_path / "dos") == ["a/Xée.png"]
    assert extract(zipped(file("a\\b.png"), system=0), tmp_path / "windows") == ["a/b.png"]
    assert extract(zipped(file("a\\b.png")), tmp_path / "unix") == ["a\\b.png"]


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    entries = [
        special("a\x1b[31m", stat.S_IFLNK, b"../outside"),
        special("b", stat.S_IFLNK),
        special("e", stat.S_IFIFO),
        special("f", stat.S_IFCHR),
        special("g", stat.S_IFBLK),
        special("h", stat.S_IFSOCK),
        file("i.png"),
    ]
    expected = (
        r"a\.zip: left out 2 symbolic links, 1 FIFO, 2 devices, 1 entry of an unknown type "
        r"\(the first is 'a\\x1b\[31m'\): only files and folders are unpacked"
    )
    for system in (0, 3):
        with pytest.warns(SemcutWarning, match=expected):
            assert extract(zipped(*entries, system=system), tmp_path / f"{system}") == ["i.png"]


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "flag").write_bytes(b"original")
    content = zipped(special("x", stat.S_IFLNK, str(outside).encode()), file("x/flag", b"overwritten"))
    with pytest.warns(SemcutWarning, match="1 symbolic link"):
        assert extract(content, tmp_path / "t") == ["x/flag"]
    assert (outside / "flag").read_bytes() == b"original"
    assert not (tmp_path / "t" / "x").is_symlink()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("../x")], "outside of the folder"),
        ([file("a/../../x")], "outside of the folder"),
        ([directory("../x")], "outside of the folder"),
        ([file("/tmp/x")], "outside of the folder"),
        ([directory("/x")], "outside of the folder"),
        ([file("a/b"), file("a//./b")], "holds 'a//./b' twice"),
        ([file("a/b"), file("a/b")], "twice"),
        ([directory("a"), file("a")], "twice"),
        ([file("a"), directory("a")], "is a file and a folder"),
        ([file("a"), file("a/b")], "is a file and a folder"),
        ([file("a/" * 40 + "b")], "too long"),
        ([file("x" * 3000)], "too long"),
        ([file("x" * 300)], "cannot be written to this disk"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(entries: list[Entry], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"cannot unpack a.zip: .*{reason}"):
        extract(zipped(*entries), tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_backslashes_of_windows_lead_nowhere_else(tmp_path: Path) -> None:
    for name in ("..\\x", "\\tmp\\x", "a\\..\\..\\x"):
        with pytest.raises(DataError, match="outside of the folder"):
            extract(zipped(file(name), system=0), tmp_path / f"{len(name)}")


def test_names_with_a_zero_byte_or_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside of the folder"):
        extract(zipped(file("aXb")).replace(b"aXb", b"a\0b"), tmp_path / "zero")
    with pytest.raises(DataError, match=r"the name 'x\\udcff\\udcff' is not valid text: rename"):
        extract(zipped(file("xé")).replace("é".encode(), b"\xff\xff"), tmp_path / "text")


def marked(content: bytes, flags: int = 0, method: int | None = None, size: int | None = None) -> bytes:
    """Change the flags, the method and the stated size of the only member."""
    forged = bytearray(content)
    for start, at in ((content.index(b"PK\3\4"), 6), (content.index(b"PK\1\2"), 8)):
        forged[start + at] |= flags
        if method is not None:
            struct.pack_into("<H", forged, start + at + 2, method)
        if size is not None:
            struct.pack_into("<I", forged, start + at + 16, size)
    return bytes(forged)


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda whole: marked(whole, flags=0x1), "'a.png' is encrypted: pack it without a password"),
        (lambda whole: marked(whole, flags=0x41), "'a.png' is encrypted"),
        (lambda whole: marked(whole, flags=0x20), "cannot be read"),
        (lambda whole: marked(whole, method=12), "'a.png' is compressed by bzip2: pack it with deflate"),
        (lambda whole: marked(whole, method=9), "'a.png' is compressed by deflate64"),
        (lambda whole: marked(whole, method=14), "'a.png' is compressed by lzma"),
        (lambda whole: marked(whole, method=999), "'a.png' is compressed by method 999"),
        (lambda whole: marked(whole, size=0xFFFFFFF0), "cut off"),
        (lambda whole: marked(whole, size=3), "damaged or cut off .*CRC"),
        (lambda whole: whole.replace(b"content", b"c0ntent"), "damaged or cut off .*CRC"),
        (lambda whole: whole.replace(b"a.png", b"b.png", 1), "damaged or cut off .*differ"),
        (lambda whole: whole[:-30], "damaged or cut off"),
    ],
)
def test_archives_that_lie_are_refused(forge: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    whole = zipped(file("a.png"), method=zipfile.ZIP_STORED)
    with pytest.raises(DataError, match=f"cannot unpack a.zip: .*{reason}"):
        extract(forge(whole), tmp_path / "t")


def test_a_file_may_not_be_larger_than_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "MAX_FILE_BYTES", 1000)
    assert extract(zipped(file("x", bytes(1000))), tmp_path / "a") == ["x"]
    with pytest.raises(DataError, match="'x' has 1,001 bytes, expected at most 1,000"):
        extract(zipped(file("x", bytes(1001))), tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_there_may_not_be_more_members_than_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 50)
    assert len(extract(zipped(*(file(f"{i}") for i in range(50))), tmp_path / "few")) == 50
    for number, entries in enumerate(([file(f"{i}") for i in range(51)], [file(f"{i}/{i}") for i in range(30)])):
        with pytest.raises(DataError, match="more than 50 members"):
            extract(zipped(*entries), tmp_path / f"{number}")


def test_the_directory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "TOTAL_BYTES", 4000)
    assert len(extract(zipped(*(file(f"{i:02}") for i in range(80))), tmp_path / "few")) == 80
    with pytest.raises(DataError, match=r"a\.zip: its list of records has more than 4,000 bytes; pack it as a tar"):
        extract(zipped(*(file(f"{i:02}") for i in range(90))), tmp_path / "many")


def test_extra_fields_are_bounded(tmp_path: Path) -> None:
    def archive(size: int) -> bytes:
        record, buffer = zipfile.ZipInfo("a"), io.BytesIO()
        record.extra = struct.pack("<HH", 0xCAFE, 0) * (size // 4)
        with zipfile.ZipFile(buffer, "w") as opened:
            opened.writestr(record, b"x")
        return buffer.getvalue()

    assert extract(archive(4096), tmp_path / "a") == ["a"]
    with pytest.raises(DataError, match="a member has 4,100 bytes of extra fields, expected at most 4,096"):
        extract(archive(4100), tmp_path / "b")


def test_the_size_of_an_archive_bounds_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "UNCHECKED_BYTES", 1 << 20)
    monkeypatch.setattr(archive_members, "MAX_RATIO", 100)
    assert extract(zipped(file("a", bytes(900_000))), tmp_path / "small") == ["a"]
    bomb = file("a", bytes(2_500_000))
    assert extract(zipped(bomb, method=zipfile.ZIP_STORED), tmp_path / "plain") == ["a"]
    with pytest.raises(DataError, match="more than 100 times its size"):
        extract(zipped(bomb), tmp_path / "bomb")


def test_members_that_share_their_bytes_are_counted_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of 200 records of the same name and the same bytes: what each would take is counted, or refused."""
    whole = zipped(file("a", bytes(500_000)))
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    forged = bytearray(whole[:start] + whole[start:end] * 200 + whole[end:])
    struct.pack_into("<HHI", forged, len(forged) - 14, 200, 200, 200 * (end - start))
    with pytest.raises(DataError, match=r"twice|[Oo]verlap"):
        extract(bytes(forged), tmp_path / "t")


def test_the_free_space_bounds_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = archives.shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: free)
    bombs = [
        [file("a", bytes(200_000))],
        [file(f"{i}", b"") for i in range(40)],
        [file(f"{i}", bytes(30_000)) for i in range(4)],
        [directory("/".join("abcdefghijklmnopqrstuvwxyz"))],
    ]
    for number, bomb in enumerate(bombs):
        with pytest.raises(DataError, match=r"more than the 0\.0 GB that are free"):
            extract(zipped(*bomb), tmp_path / f"{number}")


LIMITED = """
import resource, sys
from pathlib import Path
from semcut.connector.data.archives import unpack
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name in sys.argv[1:]:
    with open(name, "rb") as stream:
        try:
            unpack(stream, Path(name), Path(f"{name}-target"))
        except Exception as error:
            print(type(error).__name__, error)
"""


def test_memory_does_not_grow_with_the_directory(tmp_path: Path) -> None:
    """A directory of 1 GB, of zeros that occupy nothing; and one of which the stated size is 4 GB."""
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 1 << 30, 4, 0)
    with open(tmp_path / "long.zip", "wb") as stream:
        stream.write(b"PK\3\4")
        stream.seek((1 << 30) + 4)
        stream.write(end)
    (tmp_path / "lie.zip").write_bytes(b"PK\3\4" + end.replace(struct.pack("<I", 1 << 30), b"\xf0\xff\xff\xff"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "long.zip", "lie.zip"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("DataError cannot unpack long.zip: its list of records has more than 67,108,864 bytes")
    assert lines[1].startswith("DataError cannot unpack lie.zip: it is damaged or cut off")


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.long)])
def test_random_damage_is_one_error(tmp_path: Path, count: int) -> None:
    """Flipped bytes and cuts: a DataError, or files inside of the target only."""
    entries = [
        directory("a"),
        file("a/b.png", b"x" * 700),
        file("é" * 60 + "/c"),
        special("l", stat.S_IFLNK),
        file("d"),
    ]
    wholes = [zipped(*entries), zipped(*entries, method=zipfile.ZIP_STORED)]
    rng = random.Random(count)
    for number in range(count):
        content = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.1:
            del content[rng.randrange(len(content)) :]
        with warnings.catch_warnings(), suppress(DataError):
            warnings.simplefilter("ignore", SemcutWarning)
            extract(bytes(content), tmp_path / f"{number}")
    assert all(path.name.isdigit() for path in tmp_path.iterdir())
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.filterwarnings("default::semcut.indexes.errors.SemcutWarning")
def test_the_command_names_what_it_leaves_out_and_refuses(tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    evil.write_bytes(zipped(file("a/x.png"), special("b", stat.S_IFLNK)))
    done = semcut("index", evil.name, "--model", "none", "--out", "index", cwd=tmp_path, status=1)
    assert "evil.zip: left out 1 symbolic link (the first is 'b'): only files and folders are unpacked" in done.stderr
    evil.write_bytes(zipped(file("../\x1b[31mx.png")))
    done = semcut("index", evil.name, "--model", "none", "--out", "index", cwd=tmp_path, status=1)
    assert r"cannot unpack evil.zip: '../\x1b[31mx.png' would be written outside of the folder" in done.stderr
