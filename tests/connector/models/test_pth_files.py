"""A .pth file that means harm is refused before it takes memory; files that torch writes are read."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from semcut.connector.models.pth_files import read_pth

CLASS = b"ccollections\nOrderedDict\nq\1"


def zipped(path: Path, records: dict[str, bytes], *, twice: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in [*records.items(), *((name, records[name]) for name in [twice] if name)]:
            archive.writestr(f"a/{name}", content)
    return path


def records_of(state: object) -> dict[str, bytes]:
    content = io.BytesIO()
    torch.save(state, content)
    with zipfile.ZipFile(content) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def described(path: Path, operations: bytes, old: bool, names: bytes = pickle.dumps([], 2), rest: bytes = b"") -> Path:
    """Write a file that holds a pickle of these operations; in the old format also the names of the records, and them.

    Args:
        path: the file.
        operations: operations of the pickle.
        old: whether to write the old format.
        names: a pickle.
        rest: the records.
    """
    content = b"\x80\2" + operations + b"."
    if not old:
        return zipped(path, {**records_of({}), "data.pkl": content})
    start = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(start + content + names + rest)
    return path


@pytest.mark.parametrize("old", [False, True])
def test_the_weights_of_a_network_are_read(old, tmp_path: Path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).bfloat16())
    state = {**net.state_dict(), "parameter": torch.nn.Parameter(torch.ones(2)), "turned": torch.ones(2, 3).t()}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    found = read_pth(tmp_path / "a.pth", 1 << 20)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("operations", "reason"),
    {
        "bytes": (b"cbuiltins\nbytearray\nJ\0\0\0\x70\x85R", "it names 'builtins.bytearray'"),
        "a tensor": (b"ctorch\nTensor\nJ\0\0\0\x70\x85R", "it names 'torch.Tensor'"),
        "hexadecimal": (b"c_codecs\nencode\nB\1\0\0\0aX\3\0\0\0hex\x86R", "it names '_codecs.encode'"),
        "code": (b"cos\nsystem\nX\1\0\0\0a\x85R", "it names 'os.system'"),
        "a copied dictionary": (CLASS + b"}" + b"h\1}\x85R" * 10, "copies a dictionary"),
        "a hidden class": (CLASS + b"\x86q\2", "copies a dictionary"),
        "a made object": (CLASS + b")\x81", "copies a dictionary"),
        "another made object": (b"ctorch\nFloatStorage\n)\x81", "makes objects"),
        "a name on the stack": (b"X\2\0\0\0osX\6\0\0\0system\x93", "makes objects"),
        "many bytes": (b"X" + (5 << 20).to_bytes(4, "little") + bytes(5 << 20) + b"0", r"bytes|form that torch"),
    }.values(),
)  # fmt: skip
def test_a_pickle_names_and_calls_only_what_weights_need(operations, reason, old, tmp_path: Path):
    with pytest.raises(ValueError, match=reason):
        read_pth(described(tmp_path / "a.pth", operations, old), 1 << 30)


def test_ordered_dictionaries_are_made_empty(tmp_path: Path):
    state = OrderedDict(a=torch.ones(2))
    state._metadata = OrderedDict(b=OrderedDict(version=1), c=OrderedDict())
    torch.save(state, tmp_path / "a.pth")
    assert list(read_pth(tmp_path / "a.pth", 1 << 20)) == ["a"]


def test_records_are_there_once_and_no_larger_than_the_file(tmp_path: Path):
    records = records_of({"a": torch.ones(1000)})
    assert read_pth(zipped(tmp_path / "a.pth", records), 1 << 20)["a"].sum() == 1000
    with pytest.raises(ValueError, match="the same twice"):
        read_pth(zipped(tmp_path / "b.pth", records, twice="data.pkl"), 1 << 20)
    path = zipped(tmp_path / "c.pth", {**records, **{f"data/{number}": b"" for number in range(1, 50)}})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        large = archive.getinfo("a/data/0")
    entry = content.index(b"PK\1\2")
    for _ in archive.namelist():  # all records have the bytes of the largest
        if content[entry + 46 :].startswith(b"a/data/") and content[entry + 24 : entry + 28] == bytes(4):
            content[entry + 16 : entry + 28] = large.CRC.to_bytes(4, "little") + 2 * (4000).to_bytes(4, "little")
            content[entry + 42 : entry + 46] = large.header_offset.to_bytes(4, "little")
        entry = content.find(b"PK\1\2", entry + 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its records have more bytes than the file"):
        read_pth(path, 1 << 20)


def test_a_record_that_is_too_short_is_an_error(tmp_path: Path):
    records = records_of({"a": torch.ones(1000)})
    with pytest.raises(ValueError, match="states 1,000 numbers"):
        read_pth(zipped(tmp_path / "a.pth", {**records, "data/0": bytes(40)}), 1 << 20)


@pytest.mark.parametrize("old", [False, True])
def test_a_tensor_has_no_more_numbers_than_its_file(old, tmp_path: Path):
    few = torch.ones(3)
    torch.save({"a": few}, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    few.set_(few.untyped_storage(), 0, (3,), (1,))
    content = (tmp_path / "a.pth").read_bytes()
    shape = b"K\3\x85q"  # the shape (3,) of the tensor
    assert content.count(shape) == 1
    if old:
        (tmp_path / "a.pth").write_bytes(content.replace(shape, b"M\0\xf0\x85q"))
    else:
        records = records_of({"a": few})
        zipped(tmp_path / "a.pth", {**records, "data.pkl": records["data.pkl"].replace(shape, b"M\0\xf0\x85q")})
    with pytest.raises(RuntimeError, match="not resizable"):  # torch refuses to read what is not there
        read_pth(tmp_path / "a.pth", 1 << 20)


def claimed(count: bytes, key: bytes = b"0", before: bytes = b"") -> bytes:
    """The operations that name a record, as torch writes them."""
    text = b"X\7\0\0\0storage", b"X" + len(key).to_bytes(4, "little") + key, b"X\3\0\0\0cpu"
    return b"(" + text[0] + b"ctorch\nFloatStorage\n" + text[1] + text[2] + count + before + b"tQ0"


@pytest.mark.parametrize(
    ("operations", "held"),
    [
        (claimed(b"J\0\0\0\1"), "states 16,777,216 numbers in the record '0', which has 64 bytes"),
        (claimed(b"K\17"), "states 15 numbers"),
        (claimed(b"\x8a\1\xf0"), "states -16 numbers"),
        (claimed(b"K\20", b"1"), "states 16 numbers in the record '1', which has 0 bytes"),
        (claimed(b"K\20", before=b"NN"), "in another way"),
        # a tuple that was kept, in place of one that is right
        (claimed(b"J\0\0\0\1")[:-2] + b"q\1" + claimed(b"K\20")[:-3] + b"h\1Q", "in another way"),
    ],
)
def test_a_record_has_as_many_numbers_as_is_stated_whatever_torch_checks(operations, held, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has seen it"))
    file = zipped(tmp_path / "a.pth", {"data.pkl": b"\x80\2" + operations + b"}.", "data/0": bytes(64)})
    with pytest.raises(ValueError, match=held):
        read_pth(file, 1 << 20)


def text(value: str, python_2: bool = False) -> bytes:
    content = value.encode()
    return (b"U" + bytes([len(content)]) if python_2 else b"X" + struct.pack("<I", len(content))) + content


def old_tensor(
    key: str = "0",
    count: int = 4,
    size: int | None = None,
    part: bytes = b"N",
    kind: str = "Float",
    python_2: bool = False,
) -> bytes:
    """The operations that make a tensor, and leave it on the stack, as the old format has them."""
    start, name, device = (text(value, python_2) for value in ("storage", key, "cpu"))
    numbers, shape = (b"\x8a\x08" + struct.pack("<q", value) for value in (count, count if size is None else size))
    record = b"(" + start + f"ctorch\n{kind}Storage\n".encode() + name + device + numbers + part + b"tQ"
    rest = b"K\0" + shape + b"\x85K\1\x85\x89" + CLASS + b")RtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + record + rest


def old_file(path: Path, tensor: bytes, names: bytes | None = None, rest: bytes | None = None, **of: bool) -> Path:
    names = b"\x80\2](" + text("0", **of) + b"e." if names is None else names
    rest = struct.pack("<q4f", 4, 1, 2, 3, 4) if rest is None else rest
    return described(path, b"}" + text("a", **of) + tensor + b"s", True, names, rest)


@pytest.mark.parametrize("python_2", [False, True])
def test_the_old_format_is_read_as_both_pythons_wrote_it(python_2, tmp_path: Path):
    file = old_file(tmp_path / "a.pth", old_tensor(python_2=python_2), python_2=python_2)
    assert read_pth(file, 1 << 20)["a"].tolist() == [1, 2, 3, 4]


KEYS = b"\x80\2](" + text("0")
FOUR = struct.pack("<q", 4) + bytes(16)


@pytest.mark.parametrize(
    ("tensor", "names", "rest", "reason"),
    {
        "no record is read": (old_tensor(), b"\x80\2].", b"", "uses 1 records, but holds 0"),
        "another is read": (old_tensor(), b"\x80\2](" + text("1") + b"e.", FOUR, "or others"),
        "one is read twice": (old_tensor(), KEYS + text("0") + b"e.", FOUR * 2, "holds 2"),
        "one is read too much": (old_tensor(), KEYS + text("1") + b"e.", FOUR * 2, "holds 2"),
        "names that are not in the list": (old_tensor(), b"\x80\2" + text("0") + b"].", FOUR, "in another way"),
        "a text that Python 2 wrote": (old_tensor("\xe9"), b"\x80\2](U\2\xc3\xa9e.", FOUR, "in another way"),
        "a kept name": (old_tensor(), b"\x80\2](" + text("0") + b"q\1h\1e.", FOUR, "in another way"),
        "another number": (old_tensor(), KEYS + b"e.", struct.pack("<q", 5) + bytes(20), "states 4 numbers"),
        "a negative number": (old_tensor(count=-4), KEYS + b"e.", struct.pack("<q", -4), "states -4 numbers"),
        "many numbers": (old_tensor(count=1 << 50), KEYS + b"e.", struct.pack("<q", 1 << 50), "or ends early"),
        "a cut record": (old_tensor(), KEYS + b"e.", FOUR[:-1], "or ends early"),
        "a cut number": (old_tensor(count=0), KEYS + b"e.", b"", "or ends early"),
        "larger numbers": (old_tensor(kind="Double"), KEYS + b"e.", FOUR, "or ends early"),
        "two types": (old_tensor() + b"0" + old_tensor(kind="Int"), KEYS + b"e.", FOUR, "or others before"),
        "no type": (old_tensor(kind="Untyped"), KEYS + b"e.", FOUR, "which weights do not need"),
        "a part": (old_tensor(part=b"(" + text("b") + b"K\0K\4t"), KEYS + b"e.", FOUR, "in another way"),
        "no record": (old_tensor().replace(text("storage"), text("module!")), KEYS + b"e.", FOUR, "in another way"),
    }.values(),
)  # fmt: skip
def test_a_record_of_the_old_format_has_all_of_its_numbers(tensor, names, rest, reason, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has seen it"))
    with pytest.raises(ValueError, match=reason):
        read_pth(old_file(tmp_path / "a.pth", tensor, names, rest), 1 << 20)


def test_no_tensor_of_the_old_format_makes_its_record_larger(tmp_path: Path):
    """Each step would copy what the steps before it have allocated."""
    growing = b"".join(old_tensor(size=1 << bits) + b"0" for bits in range(20, 34)) + old_tensor()
    with pytest.raises(RuntimeError, match="not resizable"):
        read_pth(old_file(tmp_path / "a.pth", growing), 1 << 20)
    nothing = old_tensor(count=0, size=1 << 40), None, bytes(8)
    with pytest.raises(RuntimeError, match="not resizable"):
        read_pth(old_file(tmp_path / "a.pth", *nothing), 1 << 20)


def archived(name: bytes, body: bytes) -> bytes:
    """A tar archive with an extended header."""
    member = tarfile.TarInfo("a")
    member.type, member.size = tarfile.XHDTYPE, len(body)
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    header[: len(name)] = name
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + body + bytes(-len(body) % 512 + 1024)


@pytest.mark.parametrize("name", [b"N.N.N.N.N.", b"a", b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.N.N.N.N."])
def test_a_tar_archive_is_refused_by_its_first_bytes(name, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("tarfile has opened it"))
    (tmp_path / "a.pth").write_bytes(archived(name, b"1" * 200_000))
    with pytest.raises(ValueError, match="it is a tar archive"):
        read_pth(tmp_path / "a.pth", 1 << 20)


def test_torch_looks_for_no_tar_archive_in_the_old_format(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("tarfile has opened it"))
    assert read_pth(old_file(tmp_path / "a.pth", old_tensor()), 1 << 20)["a"].sum() == 10


@pytest.mark.parametrize("old", [False, True])
def test_tensors_are_counted(old, tmp_path: Path):
    operations = CLASS + b")R0" + b"h\1)R0" * 100_001
    with pytest.raises(ValueError, match="more than 100,000 tensors"):
        read_pth(described(tmp_path / "a.pth", operations, old), 1 << 30)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"PK\3\4" + bytes(100), b"\x80\2.", b"[1, 2]"])
def test_what_is_no_file_of_torch_is_an_error(content, tmp_path: Path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(Exception, match=r"."):
        read_pth(tmp_path / "a.pth", 1 << 20)
    torch.save(torch.ones(2), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no tensors by name"):
        read_pth(tmp_path / "a.pth", 1 << 20)
