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

from semcut.connector.models import pth_files, weight_pickle
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
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_are_what_torch_makes_of_them(old, tmp_path: Path):
    state = torch.nn.LSTM(3, 4).state_dict()  # ordered, with versions as attributes
    base = torch.arange(24.0).reshape(4, 6)
    kinds = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    state |= {kind: base.to(getattr(torch, kind)) for kind in kinds}
    state |= {"a": base, "b": base[1:, ::2], "c": base[0, 0], "d": base.t()[2:], "e": torch.empty(0, 3)}
    state |= {"g": torch.tensor(3), "h": torch.nn.Parameter(base[2], requires_grad=False)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    found, expected = read_pth(tmp_path / "a.pth", 1 << 20), torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(found[name], tensor)
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()


@pytest.mark.parametrize("old", [False, True])
def test_a_state_dict_among_other_things_is_refused(old, tmp_path: Path):
    state = {"state_dict": {"a": torch.ones(2)}, "epoch": 3, "best": 0.5, "optimiser": {"state": {0: [None, True]}}}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match="'state_dict' is not a tensor of numbers: save a file of the state dict"):
        read_pth(tmp_path / "a.pth", 1 << 20)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("operations", "reason"),
    {
        "bytes": (b"cbuiltins\nbytearray\nJ\0\0\0\x70\x85R", "it names 'builtins.bytearray'"),
        "a tensor": (b"ctorch\nTensor\nJ\0\0\0\x70\x85R", "it names 'torch.Tensor'"),
        "hexadecimal": (b"c_codecs\nencode\nB\1\0\0\0aX\3\0\0\0hex\x86R", "it names '_codecs.encode'"),
        "code": (b"cos\nsystem\nX\1\0\0\0a\x85R", "it names 'os.system'"),
        "a copied dictionary": (CLASS + b"}" + b"h\1}\x85R" * 10, "OrderedDict with other arguments"),
        "a made object": (CLASS + b")\x81", "the operation NEWOBJ"),
        "a name on the stack": (b"X\2\0\0\0osX\6\0\0\0system\x93", "the operation STACK_GLOBAL"),
        "sets": (b"\x8f" * 1000, "the operation EMPTY_SET"),
        "a called text": (b"X\1\0\0\0a)R", "calls what is no function"),
        "a called storage": (b"ctorch\nFloatStorage\nK\5\x85R", "FloatStorage with other arguments"),
        "chosen hashes": (b"}\x8a\x08" + struct.pack("<q", (1 << 61) - 1) + b"Ns", "int as a key"),
        "items of a tuple": (b")K\1K\1s", "sets items of what is no dictionary"),
        "half an item": (b"}(K\1u", "sets items"),
        "more of a dictionary": (b"}K\1a", "appends to what is no list"),
        "nothing on the stack": (b"R", "in a form that torch writes"),
        "no mark": (b"t", "in a form that torch writes"),
        "nothing kept": (b"h\1", "in a form that torch writes"),
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
    with pytest.raises(ValueError, match="the same record twice"):
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
    with pytest.raises(ValueError, match="'a' has 61,440 numbers, but its record holds 3"):
        read_pth(tmp_path / "a.pth", 1 << 20)


def claimed(count: bytes, key: bytes = b"0", before: bytes = b"") -> bytes:
    """The operations that name a record, as torch writes them."""
    text = b"X\7\0\0\0storage", b"X" + len(key).to_bytes(4, "little") + key, b"X\3\0\0\0cpu"
    return b"(" + text[0] + b"ctorch\nFloatStorage\n" + text[1] + text[2] + count + before + b"tQ"


@pytest.mark.parametrize(
    ("operations", "held"),
    [
        (claimed(b"J\0\0\0\1"), "states 16,777,216 numbers in the record '0', which has 64 bytes"),
        (claimed(b"K\17"), "states 15 numbers"),
        (claimed(b"\x8a\1\xf0"), "states -16 numbers"),
        (claimed(b"K\20", b"1"), "states 16 numbers in the record '1', which has 0 bytes"),
        (claimed(b"K\20", before=b"NN"), "in another way"),
        # a tuple that was kept, in place of one that is right
        (claimed(b"J\0\0\0\1")[:-1] + b"q\1" + claimed(b"K\20")[:-1] + b"h\1Q", "states 16,777,216 numbers"),
        (claimed(b"K\20") + claimed(b"K\17"), "or others before"),
    ],
)
def test_a_record_has_as_many_numbers_as_is_stated(operations, held, tmp_path: Path):
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


def test_the_first_weights_of_python_2_are_read(tmp_path: Path):
    """Its `OrderedDict` was made of a list, and its tensors by another function."""
    tensor = old_tensor(python_2=True).replace(b"_rebuild_tensor_v2", b"_rebuild_tensor")
    tensor = tensor[: tensor.index(b"\x89")] + b"tR"
    state = CLASS + b"](](" + text("a", True) + tensor + b"ee\x85R"
    file = described(tmp_path / "a.pth", state, True, b"\x80\2](" + text("0", True) + b"e.", FOUR)
    assert read_pth(file, 1 << 20)["a"].tolist() == [0] * 4


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
        "names that are not in the list": (old_tensor(), b"\x80\2" + text("0") + b"].", FOUR, "holds 0"),
        "a text that Python 2 wrote": (old_tensor("\xe9"), b"\x80\2](U\2\xc3\xa9e.", FOUR, "expected ASCII"),
        "a kept name": (old_tensor(), b"\x80\2](" + text("0") + b"q\1h\1e.", FOUR, "holds 2"),
        "another number": (old_tensor(), KEYS + b"e.", struct.pack("<q", 5) + bytes(20), "states 4 numbers"),
        "a negative number": (old_tensor(count=-4), KEYS + b"e.", struct.pack("<q", -4), "states -4 numbers"),
        "many numbers": (old_tensor(count=1 << 40), KEYS + b"e.", struct.pack("<q", 1 << 40), "or ends early"),
        "a cut record": (old_tensor(), KEYS + b"e.", FOUR[:-1], "or ends early"),
        "a cut number": (old_tensor(count=0), KEYS + b"e.", b"", "or ends early"),
        "larger numbers": (old_tensor(kind="Double"), KEYS + b"e.", FOUR, "or ends early"),
        "two types": (old_tensor() + old_tensor(kind="Int"), KEYS + b"e.", FOUR, "or others before"),
        "no type": (old_tensor(kind="Untyped"), KEYS + b"e.", FOUR, "which weights do not need"),
        "a part": (old_tensor(part=b"(" + text("b") + b"K\0K\4t"), KEYS + b"e.", FOUR, "in another way"),
        "no record": (old_tensor().replace(text("storage"), text("module!")), KEYS + b"e.", FOUR, "in another way"),
    }.values(),
)  # fmt: skip
def test_a_record_of_the_old_format_has_all_of_its_numbers(tensor, names, rest, reason, tmp_path: Path):
    with pytest.raises(ValueError, match=reason):
        read_pth(old_file(tmp_path / "a.pth", tensor, names, rest), 1 << 20)


def test_no_tensor_of_the_old_format_makes_its_record_larger(tmp_path: Path):
    for tensor, rest in ((old_tensor(size=1 << 33), None), (old_tensor(count=0, size=1 << 40), bytes(8))):
        with pytest.raises(ValueError, match=r"'a' has .* numbers, but its record holds [04]"):
            read_pth(old_file(tmp_path / "a.pth", tensor, None, rest), 1 << 20)


PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"
GROWN = b"(" + PARAMETER + b"(N\x89)tR" + b"K\0J\0\0\0\x40\x85K\1\x85tb"
"""Sets (a parameter of nothing, first number, 2^30 numbers, stride) as the state of what is before it."""


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        (PARAMETER + b"(N\x89)tR" + GROWN, "_rebuild_parameter with other arguments"),
        (PARAMETER + b"(" + PARAMETER + b"\x89)tR" + GROWN, "_rebuild_parameter with other arguments"),
        (old_tensor(part=b"%s") + b"(K\0tb", "sets attributes"),
        (PARAMETER + b"(" + old_tensor(part=b"%s") + b"\x89)tR}b", "sets attributes"),
        (CLASS + b")R(" + old_tensor(part=b"%s") + b"K\0tb", "sets attributes"),
        (b"}}b", "sets attributes"),
    ],
)
def test_nothing_changes_a_tensor_after_it_was_made(operations, reason, old, tmp_path: Path):
    """So none has other numbers than its record, such as memory of this process."""
    operations = operations.replace(b"%s", b"N" if old else b"")
    with pytest.raises(ValueError, match=reason):
        read_pth(described(tmp_path / "a.pth", b"}" + text("a") + operations + b"s", old), 1 << 20)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (b"K\1K\4\x85K\1\x85", "'a' has 4 numbers"),
        (b"K\0K\2\x85K\4\x85", "'a' has 2 numbers"),
        (b"K\0K\5\x85K\0\x85", "'a' has 5 numbers"),
        (b"J\xff\xff\xff\xffK\4\x85K\1\x85", "the size -1"),
        (b"K\0K\4\x85J\xff\xff\xff\xff\x85", "the size -1"),
        (b"K\0K\1\x85\x8a\x09" + bytes(8) + b"\1\x85", "the size 18446744073709551616"),
        (b"K\0K\4\x85)", "_rebuild_tensor_v2 with other arguments"),
        (b"K\0(" + b"K\1" * 9 + b"t(" + b"K\1" * 9 + b"t", "_rebuild_tensor_v2 with other arguments"),
        (b"K\0" + b"K\0\x8a\x05\0\0\0\0\x40\x8a\x05\0\0\0\0\x40\x87" + b"K\1K\1K\1\x87", "no numbers, but a size"),
        (b"K\0]K\1\x85", "_rebuild_tensor_v2 with other arguments"),
        (b"K\0N\x85K\1\x85", "_rebuild_tensor_v2 with other arguments"),
    ],
)  # fmt: skip
def test_a_tensor_lies_in_its_record(parts, reason, tmp_path: Path):
    tensor = old_tensor()
    usual = b"K\0\x8a\x08" + struct.pack("<q", 4) + b"\x85K\1\x85\x89"
    assert tensor.count(usual) == 1
    with pytest.raises(ValueError, match=reason):
        read_pth(old_file(tmp_path / "a.pth", tensor.replace(usual, parts + b"\x89")), 1 << 20)


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


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "operation", [b"N", b"]", b"}", b")", b"(", b"K\0", b"\x8a\0", CLASS + b"](" + b"]K\0aK\0a" * 9]
)
def test_operations_are_counted(operation, old, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(weight_pickle, "_MOST_OPERATIONS", 1000)
    with pytest.raises(ValueError, match="more than 1,000 operations"):
        read_pth(described(tmp_path / "a.pth", operation * 1001, old), 1 << 20)


def test_a_long_shape_is_not_walked_by_every_call(tmp_path: Path, monkeypatch):
    """A call has a few bytes, and many calls can be given the same shape."""
    monkeypatch.setattr(weight_pickle, "all", lambda numbers: pytest.fail("walked"), raising=False)
    shape = b"(" + b"K\1" * 1000 + b"tq\3"
    call = b"ctorch._utils\n_rebuild_tensor\n(" + claimed(b"K\4") + b"K\0" + shape + b"h\3tR"
    with pytest.raises(ValueError, match="_rebuild_tensor with other arguments"):
        read_pth(described(tmp_path / "a.pth", call, False), 1 << 20)


@pytest.mark.parametrize("operations", [b"}" + b"%sNs", b"}" + b"%s" + b"Ns" + b"%sNs", "record"])
def test_long_names_are_refused(operations, tmp_path: Path):
    long = "a" * 1001
    given = claimed(b"K\4", long.encode()) if operations == "record" else operations.replace(b"%s", text(long))
    with pytest.raises(ValueError, match="a name of 1,001 characters, expected at most 1,000"):
        read_pth(described(tmp_path / "a.pth", given, False), 1 << 20)


@pytest.mark.parametrize("old", [False, True])
def test_shapes_are_compared_before_numbers_are_read(old, tmp_path: Path, monkeypatch):
    torch.save({"a": torch.ones(2, 3), "b": torch.ones(())}, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    assert len(read_pth(tmp_path / "a.pth", 1 << 20, lambda shapes: None)) == 2

    def check(shapes):
        assert shapes == {"a": (2, 3), "b": ()}
        monkeypatch.setattr(pth_files, "_read_all", lambda *_: pytest.fail("read"))
        raise ValueError("other shapes")

    with pytest.raises(ValueError, match="other shapes"):
        read_pth(tmp_path / "a.pth", 1 << 20, check)


def test_copies_are_counted(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(weight_pickle, "_MOST_OPERATIONS", 1000)
    pairs = CLASS + b"]q\2(" + (b"](" + text("a") + b"Ne") * 20 + b"e"
    read = described(tmp_path / "a.pth", pairs + b"h\1h\2\x85R", False)
    with pytest.raises(ValueError, match="'a' is not a tensor"):
        read_pth(read, 1 << 20)
    with pytest.raises(ValueError, match="more than 1,000 operations"):
        read_pth(described(tmp_path / "a.pth", pairs + b"h\1h\2\x85R" * 30, False), 1 << 20)


def test_tensors_are_counted(tmp_path: Path):
    names = b"".join(text(str(number)) + b"h\2" for number in range(20_000))
    tensors = b"}(" + text("a") + old_tensor() + b"q\2" + names + b"u"
    with pytest.raises(ValueError, match="20,001 tensors, expected at most 20,000"):
        read_pth(described(tmp_path / "a.pth", tensors, True, KEYS + b"e.", FOUR), 1 << 20)


@pytest.mark.parametrize("zip64", [False, True])
def test_a_list_of_many_records_is_not_read(zip64, tmp_path: Path):
    entry = b"PK\1\2" + bytes(42)
    count = (4 << 20) // len(entry) + 1
    size, start = count * len(entry), 4
    few, small, place = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (count & 0xFFFF, size, start)
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, few, few, small, place, 0)
    if zip64:
        larger = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, size, start)
        end = larger + b"PK\6\7" + struct.pack("<LQL", 0, start + size, 1) + end
    (tmp_path / "a.pth").write_bytes(b"PK\3\4" + entry * count + end)
    with pytest.raises(ValueError, match="list of records has more than 4,194,304 bytes"):
        read_pth(tmp_path / "a.pth", 1 << 30)


def test_records_that_torch_does_not_write_are_refused(tmp_path: Path):
    records = records_of({"a": torch.ones(2)})
    with pytest.raises(ValueError, match="not little-endian"):
        read_pth(zipped(tmp_path / "a.pth", {**records, "byteorder": b"big"}), 1 << 20)
    del records["data.pkl"]
    with pytest.raises(ValueError, match=r"has no record 'data\.pkl'"):
        read_pth(zipped(tmp_path / "a.pth", records), 1 << 20)
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(range(256)))
    with pytest.raises(ValueError, match="is compressed"):
        read_pth(tmp_path / "b.pth", 1 << 20)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"PK\3\4" + bytes(100), b"\x80\2.", b"[1, 2]"])
def test_what_is_no_file_of_torch_is_an_error(content, tmp_path: Path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_pth(tmp_path / "a.pth", 1 << 20)
    torch.save(torch.ones(2), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no tensors by name"):
        read_pth(tmp_path / "a.pth", 1 << 20)
