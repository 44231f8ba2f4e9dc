"""Archives that mean harm: nothing outside of the target is touched, and every limit is checked in time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from semcut.connector.data import archive_members, archives, extended_headers, sources
from semcut.connector.data.archives import unpack
from semcut.indexes.errors import DataError, SemcutWarning
from tests.command import semcut

Entry = tuple[str, bytes, "bytes | str"]
"""Name, type, and content or target of a link."""


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content in entries:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(content, str):
                member.linkname = content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def file(name: str, content: bytes = b"content") -> Entry:
    return name, tarfile.REGTYPE, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return name, kind, target


def directory(name: str) -> Entry:
    return name, tarfile.DIRTYPE, b""


def header(name: str, kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def extract(content: bytes, target: Path) -> list[str]:
    """Unpack into a folder beside nothing else; return the paths of all files."""
    unpack(io.BytesIO(content), Path("a.tar"), target)
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir())


def everything(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_ordinary_archives_are_unpacked(form: int, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    long = f"a/{'x' * 90}/{'y' * 90}.png"
    content = tar(directory("./a"), file("./a/b.png", b"1"), file(long, b"22"), file("./c/d.png", b"333"), form=form)
    assert extract(compress(content), tmp_path / "t") == sorted(["a/b.png", long, "c/d.png"])
    assert (tmp_path / "t" / long).read_bytes() == b"22"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_kept(form: int, tmp_path: Path) -> None:
    name = f"{'ü' * 120}/{'z' * 250}.png"
    assert extract(tar(file(name), form=form), tmp_path / "t") == [name]


def test_files_keep_their_time_and_lose_their_rights(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.mtime, member.mode = 1_000_000_000, 0o6777
    extract(member.tobuf() + bytes(1024), tmp_path / "t")
    status = (tmp_path / "t" / "a.png").stat()
    assert status.st_mtime == 1_000_000_000
    assert status.st_mode & 0o7111 == 0


def test_several_compressed_streams_are_one_archive(tmp_path: Path) -> None:
    content = tar(file("a.png", b"x" * 70_000))
    halves = lzma.compress(content[:9_000]) + bytes(8) + lzma.compress(content[9_000:])
    assert extract(halves, tmp_path / "t") == ["a.png"]


def cve_2025_4517(outside: Path) -> bytes:
    """A path of links that is longer than PATH_MAX, where `realpath` stops to resolve them and the filter is blind."""
    entries, path, steps = [], "", "abcdefghijklmnop"
    for step in steps:
        entries += [directory(f"{path}{'d' * 247}"), link(path + step, "d" * 247)]
        path += f"{'d' * 247}/"
    through = f"{'/'.join(steps)}/{'l' * 254}"
    entries += [link(through, "../" * len(steps)), link("escape", f"{through}/../{outside.name}")]
    return tar(*entries, link("flaglink", "escape/flag", tarfile.LNKTYPE), file("flaglink", b"overwritten"))


def chain_of_links(outside: Path) -> bytes:
    """The same with short names, so that all of it is read."""
    entries: list[Entry] = []
    for number, step in enumerate("abcdefghijklmnop"):
        entries += [directory(f"d{number}"), link(step, f"d{number}/..")]
    through = f"{'/'.join('abcdefghijklmnop')}/link"
    entries += [link(through, "../" * 16), link("escape", f"{through}/../{outside.name}")]
    return tar(
        *entries,
        link("flaglink", "escape/flag", tarfile.LNKTYPE),
        file("flaglink", b"overwritten"),
        file("escape/flag", b"overwritten"),
    )


def names_as_link_and_file(outside: Path) -> bytes:
    return tar(link("x", str(outside)), file("x/flag", b"overwritten"), link("y", f"{outside}/flag"), file("y"))


def hard_links(outside: Path) -> bytes:
    return tar(link("x", f"{outside}/flag", tarfile.LNKTYPE), file("x", b"overwritten"))


def relative_links(outside: Path) -> bytes:
    return tar(link("x", f"../{outside.name}"), file("./x//./flag", b"overwritten"))


@pytest.mark.parametrize("make", [cve_2025_4517, chain_of_links, names_as_link_and_file, hard_links, relative_links])
def test_no_link_leads_out_of_the_folder(make: Callable[[Path], bytes], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "flag").write_bytes(b"original")
    with warnings.catch_warnings(), suppress(DataError):  # a DataError where a file is another member's folder
        warnings.simplefilter("ignore", SemcutWarning)
        extract(make(outside), tmp_path / "t")
    assert (outside / "flag").read_bytes() == b"original"
    assert list(outside.iterdir()) == [outside / "flag"]
    assert not any(path.is_symlink() for path in (tmp_path / "t").rglob("*"))


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    entries = [link("a\x1b[31m", "b"), link("b", "c"), link("c", "d", tarfile.LNKTYPE), ("e", tarfile.FIFOTYPE, b"")]
    content = tar(*entries, ("f", tarfile.CHRTYPE, b""), ("g", tarfile.BLKTYPE, b""), ("h", b"Q", b""), file("i.png"))
    expected = (
        r"a\.tar: left out 2 symbolic links, 1 hard link, 1 FIFO, 2 devices, 1 entry of an unknown type "
        r"\(the first is 'a\\x1b\[31m'\): only files and folders are unpacked"
    )
    with pytest.warns(SemcutWarning, match=expected):
        assert extract(content, tmp_path / "t") == ["i.png"]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("../x")], "outside of the folder"),
        ([file("a/../../x")], "outside of the folder"),
        ([file("a/..")], "outside of the folder"),
        ([directory("../x")], "outside of the folder"),
        ([file("/tmp/x")], "outside of the folder"),
        ([directory("/x")], "outside of the folder"),
        ([file("a/b"), file("a//./b")], "holds 'a//./b' twice"),
        ([file("a/b"), file("a/b")], "twice"),
        ([directory("a"), file("a")], "twice"),
        ([file("a"), directory("a")], "is a file and a folder"),
        ([file("a"), file("a/b")], "is a file and a folder"),
        ([file("a/" * 40 + "b")], "too long"),
        ([file("a/" * 20_000 + "b")], "too long"),
        ([file("x" * 3000)], "too long"),
        ([file("/".join(["x" * 60] * 34))], "too long"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(entries: list[Entry], reason: str, tmp_path: Path) -> None:
    before = everything(tmp_path)
    with pytest.raises(DataError, match=f"cannot unpack a.tar: .*{reason}"):
        extract(tar(*entries), tmp_path / "t")
    assert {name for name in everything(tmp_path) if not name.startswith(f"{tmp_path}/t")} == set(before)


@pytest.mark.parametrize("entry", [file("x" * 300), directory("x" * 300), file("a/" + "x" * 300 + "/b")])
def test_a_name_that_no_disk_takes_is_an_error_of_the_archive(entry: Entry, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written to this disk"):
        extract(tar(entry), tmp_path / "t")


def test_folders_that_exist_cost_the_same_at_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, mkdir = [], os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda *given: (calls.append(given), mkdir(*given)))
    deep = "/d" * 30
    names = [f"{number % 2}{deep}/{number}" for number in range(200)]
    assert extract(tar(*map(file, names)), tmp_path / "t") == sorted(names)
    assert len(calls) < 4 * 31 + 201


def test_names_with_a_zero_byte_are_refused(tmp_path: Path) -> None:
    records = record(b"path", b"a\0b")
    with pytest.raises(DataError, match="outside of the folder"):
        extract(pax(records) + header("x", tarfile.REGTYPE, 0) + bytes(1024), tmp_path / "t")


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while length != len(str(length)) + len(key) + len(value) + 3:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", kind, len(records)) + records + bytes(-len(records) % 512)


@pytest.mark.parametrize(
    "records",
    [b"abc", b"0 a=b\n", b"99999999999999999999999 a=b\n", b"6 a=b", b"5 ab\n", b"100 a=b\n", b"-6 a=b\n", b"3 a\n"],
)
def test_damaged_pax_headers_are_refused(records: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="extended header is damaged"):
        extract(pax(records) + header("x", tarfile.REGTYPE, 0) + bytes(1024), tmp_path / "t")


@pytest.mark.parametrize(
    ("key", "value", "kind", "reason"),
    [
        (b"size", b"-1", tarfile.XHDTYPE, "not a number"),
        (b"size", b"9" * 5000, tarfile.XHDTYPE, "not a number"),
        (b"size", b"9" * 12, tarfile.XHDTYPE, "has 999,999,999,999 bytes, expected at most"),
        (b"path", b"../x", tarfile.XHDTYPE, "outside"),
        (b"path", b"x", tarfile.XGLTYPE, "all members the same"),
        (b"size", b"0", tarfile.XGLTYPE, "all members the same"),
        (b"GNU.sparse.realsize", b"9" * 18, tarfile.XHDTYPE, "sparse"),
    ],
)
def test_pax_headers_cannot_lie(key: bytes, value: bytes, kind: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        extract(pax(record(key, value), kind) + header("x", tarfile.REGTYPE, 0) + bytes(1024), tmp_path / "t")


def test_a_file_may_not_be_larger_than_a_limit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'x' has 1,099,511,627,776 bytes, expected at most 4,294,967,296"):
        extract(header("x", tarfile.REGTYPE, 1 << 40), tmp_path / "t")
    assert list((tmp_path / "t").iterdir()) == []


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="negative"):
        extract(header("x", tarfile.REGTYPE, -512) + bytes(1024), tmp_path / "t")


def test_there_may_not_be_more_members_than_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 50)
    for number, entries in enumerate(
        (
            [file(f"{i}") for i in range(60)],
            [file(f"{i}/{i}") for i in range(30)],
            [link(f"{i}", "x") for i in range(60)],
        )
    ):
        with pytest.raises(DataError, match="more than 50 members"):
            extract(tar(*entries), tmp_path / f"{number}")


def test_empty_extended_headers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 50)
    for number, kind in enumerate((tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)):
        whole = header("x", kind, 0) * 48 + tar(file("x", b""))
        assert len(extract(whole, tmp_path / f"a{number}")) == 1
        with pytest.raises(DataError, match="more than 50 members"):
            extract(header("x", kind, 0) * 60 + bytes(1024), tmp_path / f"b{number}")


def test_the_records_of_extended_headers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def archive(*counts: int) -> bytes:
        members = (
            pax(b"5 a=\n" * count) + header(f"{number}", tarfile.REGTYPE, 0) for number, count in enumerate(counts)
        )
        return b"".join(members) + bytes(1024)

    assert len(extract(archive(1000, 1000), tmp_path / "a")) == 2
    with pytest.raises(DataError, match=r"too many records: expected at most 1,000 in one"):
        extract(archive(1001), tmp_path / "b")
    monkeypatch.setattr(extended_headers, "TOTAL_RECORDS", 100)
    assert len(extract(archive(*[16] * 100, 100), tmp_path / "c")) == 101
    with pytest.raises(DataError, match=r"too many records.* 100 in all"):
        extract(archive(*[16] * 100, 117), tmp_path / "d")


def test_the_size_of_an_archive_bounds_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "UNCHECKED_BYTES", 1 << 20)
    monkeypatch.setattr(archive_members, "MAX_RATIO", 100)
    sparse = tar(file("a", bytes(900_000)))
    for compress in (bytes, gzip.compress, bz2.compress, lzma.compress):
        assert extract(compress(sparse), tmp_path / compress.__module__) == ["a"]
    bomb = tar(file("a", bytes(2_500_000)))
    assert extract(bomb, tmp_path / "plain") == ["a"]
    for number, compress in enumerate((gzip.compress, bz2.compress, lzma.compress)):
        with pytest.raises(DataError, match="more than 100 times its size"):
            extract(compress(bomb), tmp_path / f"{number}")


def test_the_free_space_bounds_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = archives.shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: free)
    bombs = [
        tar(file("a", bytes(200_000))),
        tar(*(file(f"{i}", b"") for i in range(40))),
        tar(*(file(f"{i}", bytes(30_000)) for i in range(4))),
        header("x", b"Q", 1 << 30) + bytes(1 << 20),
        pax(b"", tarfile.XGLTYPE) * 300,
        tar(directory("/".join("abcdefghijklmnopqrstuvwxyz"))),
    ]
    for number, bomb in enumerate(bombs):
        for compress in (bytes, gzip.compress, bz2.compress, lzma.compress):
            with pytest.raises(DataError, match=r"more than the 0\.0 GB that are free"):
                extract(compress(bomb), tmp_path / f"{number}{compress.__module__}")


def test_folders_count_as_unpacked_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "UNCHECKED_BYTES", 1 << 20)
    monkeypatch.setattr(archive_members, "MAX_RATIO", 10)
    deep = "/".join("abcdefghijklmnopqrstuvwxyz")
    with pytest.raises(DataError, match="more than 10 times its size; pack it uncompressed"):
        extract(gzip.compress(tar(*(directory(f"{number}/{deep}") for number in range(20)))), tmp_path / "out")


LIMITED = """
import resource, sys
from pathlib import Path
from semcut.connector.data.archives import unpack
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for number, name in enumerate(sys.argv[1:]):
    with open(name, "rb") as stream:
        try:
            unpack(stream, Path(name), Path(f"{name}-target"))
        except Exception as error:
            print(type(error).__name__, error)
"""


def test_memory_does_not_grow_with_headers(tmp_path: Path) -> None:
    """A header of 3 GB that compresses to 3 MB; many of a megabyte; and a dictionary of 1.5 GB."""
    block = b"1048576 comment=" + b"x" * (1048576 - 17) + b"\n"
    for name, kind in (("pax", tarfile.XHDTYPE), ("global", tarfile.XGLTYPE), ("long", tarfile.GNUTYPE_LONGNAME)):
        with gzip.open(tmp_path / f"{name}.tar.gz", "wb", compresslevel=1) as stream:
            stream.write(header("x", kind, 3 << 30))
            for _ in range(8):  # the rest is never reached
                stream.write(block)
    with gzip.open(tmp_path / "many.tar.gz", "wb", compresslevel=1) as stream:
        for number in range(500):
            stream.write(pax(block, tarfile.XGLTYPE) + header(f"{number}", tarfile.REGTYPE, 0))
        stream.write(bytes(1024))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    wide = bytearray(lzma.compress(tar(file("x")), filters=filters, check=lzma.CHECK_NONE))
    assert wide[16] == 8  # the dictionary's size in the header of the block; 40 is 4 GB
    wide[16] = 40
    wide[20:24] = zlib.crc32(bytes(wide[12:20])).to_bytes(4, "little")
    (tmp_path / "wide.tar.xz").write_bytes(wide)
    names = ["pax.tar.gz", "global.tar.gz", "long.tar.gz", "wide.tar.xz", "many.tar.gz"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout + done.stderr
    assert all("DataError" in line and "3,221,225,472 bytes, expected at most 1,048,576" in line for line in lines[:3])
    assert "Memory usage limit" in lines[3]
    assert "extended headers have more than 67,108,864 bytes in all" in lines[4]


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.long)])
def test_random_damage_is_one_error(tmp_path: Path, count: int) -> None:
    """Flipped bytes and cuts, in plain and compressed archives: a DataError, or files inside of the target only."""
    entries = [directory("a"), file("a/b.png", b"x" * 700), file("é" * 120 + "/c"), link("l", "/etc/passwd"), file("d")]
    wholes = [tar(*entries, form=form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    wholes += [gzip.compress(wholes[1]), bz2.compress(wholes[1]), lzma.compress(wholes[1])]
    rng = random.Random(count)
    for number in range(count):
        content = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        with warnings.catch_warnings(), suppress(DataError):
            warnings.simplefilter("ignore", SemcutWarning)
            extract(bytes(content), tmp_path / f"{number}")
    assert all(path.name.isdigit() for path in tmp_path.iterdir())
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.filterwarnings("default::semcut.indexes.errors.SemcutWarning")
def test_the_command_tells_what_it_leaves_out_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "flag").write_bytes(b"original")
    evil = tmp_path / "evil.tar"
    for content, left_out in (
        (tar(file("a/x.png"), link("b", str(tmp_path / "outside"))), "1 symbolic link (the first is 'b')"),
        (chain_of_links(tmp_path / "outside"), "18 symbolic links, 1 hard link (the first is 'a')"),
    ):
        evil.write_bytes(content)
        done = semcut("index", evil.name, "--model", "none", "--out", "index", cwd=tmp_path, status=1)
        assert f"evil.tar: left out {left_out}: only files and folders are unpacked" in done.stderr
        assert (tmp_path / "outside" / "flag").read_bytes() == b"original"
    evil.write_bytes(cve_2025_4517(tmp_path / "outside"))
    done = semcut("index", evil.name, "--model", "none", "--out", "index", cwd=tmp_path, status=1)
    assert "cannot unpack evil.tar" in done.stderr
    assert "is too long: expected at most 2,048 bytes" in done.stderr
    assert (tmp_path / "outside" / "flag").read_bytes() == b"original"


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device"])
def test_an_archive_is_a_regular_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is not a regular file; expected a folder or an archive"):
        sources.load(f"{path}/train" if kind == "device" else str(path))
