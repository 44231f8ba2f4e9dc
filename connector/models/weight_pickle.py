"""`WeightPickle`: reads the pickles in which torch describes weights, without running any of them.

A pickle is a program: its operations call functions and change objects. Here each operation that the description of
weights needs is carried out on plain values: texts, numbers, tuples, lists, dictionaries, `Record` and `Described`.
No function of torch or of any other library is called, whatever a pickle says, and every other operation is refused.
So a file can neither run code, nor make a tensor of anything but numbers that it holds.

Each operation takes a few bytes of the file and makes an object of a hundred, so operations are counted. Objects of
other kinds, and those that tensors of torch could have beside their numbers, do not exist here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from semcut.indexes.errors import shown

_MOST_OPERATIONS = 1_000_000
"""The most operations in a file: weights have about 50 for each tensor."""
_LONGEST_NAME = 1000
MAX_DIMENSIONS = 8
"""The most dimensions of a tensor."""
_ORDERED = "collections OrderedDict"
_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
"""The types of numbers: a record states its type as `torch.FloatStorage`."""
_PARTS = {"torch._utils _rebuild_tensor": 4, "torch._utils _rebuild_tensor_v2": 6}
"""How many arguments make a tensor: its record, its first number there, shape, strides; then whether it has a gradient,
and hooks, which are not read."""
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {_ORDERED, _PARAMETER, *_PARTS, *(f"torch {kind}Storage" for kind in _KINDS)}


@dataclass(frozen=True, slots=True)
class Record:
    """Numbers in the file.

    Attributes:
        kind: their type, as "Float".
        key: name of the record.
        count: how many numbers it has.
    """

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor as the file describes it; nothing of it is checked but the types.

    Attributes:
        record: its numbers.
        first: position of its first number in the record.
        shape: its shape, of at most 8 dimensions.
        strides: the distance of neighbours in the record, for each dimension.
    """

    record: Record
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """The name of a class or function, which is never looked up."""

    name: str


class _Ordered(dict[Any, Any]):
    """An `OrderedDict`, whose attributes are not kept."""

    __slots__ = ()


class WeightPickle:
    """Reads all pickles of one file, and counts their operations together.

    Args:
        stream: the pickles, one behind another, each complete; at most some megabytes.

    Attributes:
        records: every record that they use, by its name.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.records: dict[str, Record] = {}
        self._stream = stream
        self._left = _MOST_OPERATIONS
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._kept: dict[int, Any] = {}

    def read(self) -> Any:
        """Read the next pickle, and leave the stream behind it.

        Returns:
            None, a bool, int, float or str, a `Record` or a `Described`, or tuples, lists and dictionaries of them.

        Raises:
            ValueError: it is no pickle, or has an operation, a name or a value that weights do not need.
        """
        self._stack, self._marks, self._kept = [], [], {}
        try:
            for operation, argument, _ in pickletools.genops(self._stream):
                self._count(1)
                if operation.name == "STOP":
                    return self._stack.pop()
                carry_out = _OPERATIONS.get(operation.name)
                if carry_out is None:
                    raise _Refusal(f"it has the operation {operation.name}, which weights do not need")
                carry_out(self, argument)
        except _Refusal as refusal:
            raise ValueError(str(refusal)) from None
        except (ValueError, IndexError, KeyError):  # no pickle, or one that takes more from the stack than is there
            pass
        raise ValueError("it has no weights in a form that torch writes")

    def _count(self, operations: int) -> None:
        self._left -= operations
        if self._left < 0:
            raise _Refusal(f"its description has more than {_MOST_OPERATIONS:,} operations")

    def _nothing(self, argument: Any) -> None:
        pass

    def _push(self, argument: Any) -> None:
        self._stack.append(argument)

    def _push_text(self, argument: str) -> None:
        """Push a text that Python 2 wrote, of bytes in an unknown encoding."""
        if not argument.isascii():
            raise _Refusal(f"it has the text {shown(argument)}, expected ASCII")
        self._stack.append(argument)

    def _push_name(self, argument: str) -> None:
        if argument not in _NAMES:
            raise _Refusal(f"it names {shown(argument.replace(' ', '.'))}, which weights do not need")
        self._stack.append(_Name(argument))

    def _keep(self, argument: int) -> None:
        self._kept[argument] = self._stack[-1]

    def _fetch(self, argument: int) -> None:
        self._stack.append(self._kept[argument])

    def _mark(self, argument: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _tuple(self, argument: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _short_tuple(self, length: int) -> None:
        items = tuple(self._stack.pop() for _ in range(length))
        self._stack.append(items[::-1])

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise _Refusal("it appends to what is no list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Refusal("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # only these have no hashes that the file can choose, to make a dictionary slow
            if type(key) is not str and not (type(key) is int and 0 <= key < _MOST_OPERATIONS):
                raise _Refusal(f"it has a {type(key).__name__} as a key of a dictionary, expected a name")
            if type(key) is str:
                _require_name(key)
            target[key] = value

    def _set_one(self, argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _build(self, argument: Any) -> None:
        """Drop the attributes of an `OrderedDict`: the versions of the layers. Nothing else may have any."""
        attributes, target = self._stack.pop(), self._stack[-1]
        if type(target) is not _Ordered or not isinstance(attributes, dict):
            raise _Refusal("it sets attributes of what is no OrderedDict (BUILD)")

    def _call(self, argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
            raise _Refusal("it calls what is no function")
        if function.name == _ORDERED and (not arguments or _is_pairs(arguments)):
            self._count(2 * sum(map(len, arguments)))  # one list can be copied by many calls
            self._stack.append(_Ordered())
            self._set([value for pairs in arguments for pair in pairs for value in pair])
        elif function.name == _PARAMETER and len(arguments) == 3 and type(arguments[0]) is Described:
            self._stack.append(arguments[0])
        elif len(arguments) == _PARTS.get(function.name) and _is_described(*arguments[:4]):
            self._stack.append(Described(*arguments[:4]))
        else:
            raise _Refusal(f"it calls {function.name.replace(' ', '.')} with other arguments than torch does")

    def _record(self, argument: Any) -> None:
        """Replace ("storage", type, name, device, count) by its record; the old format adds None, or a part of it."""
        match self._stack.pop():
            case ("storage", _Name(name), str(key), str(_), int(count), *part) if part in ([], [None]):
                _require_name(key)
                kind = name.removeprefix("torch ").removesuffix("Storage")
                record = Record(kind, key, count)
            case _:
                raise _Refusal("it names its records in another way than torch does")
        if kind not in _KINDS or count < 0 or self.records.setdefault(key, record) != record:
            raise _Refusal(f"it states {count:,} numbers of {shown(name)} in the record {shown(key)}, or others before")
        self._stack.append(record)


class _Refusal(Exception):
    """What a pickle does that weights do not need."""


def _require_name(name: str) -> None:
    """Refuse a long name: each use of a dictionary can compare all of it."""
    if len(name) > _LONGEST_NAME:
        raise _Refusal(f"it has a name of {len(name):,} characters, expected at most {_LONGEST_NAME:,}")


def _is_pairs(arguments: tuple[Any, ...]) -> bool:
    """Return whether the argument of an `OrderedDict` is a list of lists of two, as Python 2 wrote its content."""
    pairs = arguments[0]
    return len(arguments) == 1 and type(pairs) is list and all(type(one) is list and len(one) == 2 for one in pairs)


def _is_described(record: Any, first: Any, shape: Any, strides: Any) -> bool:
    return (
        type(record) is Record
        and type(shape) is type(strides) is tuple
        and len(shape) == len(strides) <= MAX_DIMENSIONS  # one shape of a million numbers can be given to many calls
        and all(type(number) is int for number in (first, *shape, *strides))
    )


_OPERATIONS: dict[str, Callable[[WeightPickle, Any], None]] = {
    "PROTO": WeightPickle._nothing,
    "NONE": WeightPickle._push,
    "NEWTRUE": lambda pickle, _: pickle._push(True),
    "NEWFALSE": lambda pickle, _: pickle._push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), WeightPickle._push),
    "SHORT_BINSTRING": WeightPickle._push_text,
    "GLOBAL": WeightPickle._push_name,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), WeightPickle._keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), WeightPickle._fetch),
    "MARK": WeightPickle._mark,
    "TUPLE": WeightPickle._tuple,
    "EMPTY_TUPLE": lambda pickle, _: pickle._push(()),
    "TUPLE1": lambda pickle, _: pickle._short_tuple(1),
    "TUPLE2": lambda pickle, _: pickle._short_tuple(2),
    "TUPLE3": lambda pickle, _: pickle._short_tuple(3),
    "EMPTY_LIST": lambda pickle, _: pickle._push([]),
    "APPEND": lambda pickle, _: pickle._extend([pickle._stack.pop()]),
    "APPENDS": lambda pickle, _: pickle._extend(pickle._since_mark()),
    "EMPTY_DICT": lambda pickle, _: pickle._push({}),
    "SETITEM": WeightPickle._set_one,
    "SETITEMS": lambda pickle, _: pickle._set(pickle._since_mark()),
    "BUILD": WeightPickle._build,
    "REDUCE": WeightPickle._call,
    "BINPERSID": WeightPickle._record,
}
"""The operations that torch writes for weights; they get the argument that is in the file."""
