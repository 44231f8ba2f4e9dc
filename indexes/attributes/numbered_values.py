"""The different values of one attribute, which are numbered from 0 in the order in which they came.

Each snapshot has the values of its records, and a change adds some to those of the snapshot before. With many values
they would take long to copy. So all snapshots share one list and one dictionary, which only grow, and each has the
number of values that are its own: it looks at no later ones, and other threads may read it while values are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any


class NumberedValues:
    """Some different values by number; they never change.

    Args:
        values: the values, which are not copied.
        numbers: the number of each value.
    """

    def __init__(self, values: list[Any], numbers: dict[Any, int]) -> None:
        self._values, self._numbers, self._count = values, numbers, len(values)

    @staticmethod
    def of(values: list[Any]) -> NumberedValues:
        """Number some values, which are not copied.

        Raises:
            ValueError: a value occurs twice.
        """
        numbers = dict(zip(values, range(len(values)), strict=True))
        if len(numbers) < len(values):
            raise ValueError("a value occurs twice")
        return NumberedValues(values, numbers)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return islice(self._values, self._count)

    def number_of(self, value: Any) -> int | None:
        """Return the number of a value; None if it is not among these."""
        number = self._numbers.get(value)
        return number if number is not None and number < self._count else None

    def numbers_of(self, values: Sequence[Any]) -> list[int]:
        """Return the numbers of n values, all of which are among these or None; that of None is -1."""
        numbers = self._numbers
        return [-1 if value is None else numbers[value] for value in values]

    def values_of(self, numbers: Sequence[int]) -> list[Any]:
        """Return the values of n numbers, all from -1 to the last one; that of -1 is None."""
        values = self._values
        return [None if number < 0 else values[number] for number in numbers]

    def extended(self, fresh: Sequence[Any]) -> NumberedValues:
        """Return these values and some others, different ones that are not among these.

        One thread at a time may extend the values of an index.
        """
        if not fresh:
            return self
        values, numbers = self._values, self._numbers
        if len(values) > self._count:  # a change that failed, or was interrupted, has added others
            values = values[: self._count]
            numbers = dict(zip(values, range(self._count), strict=True))
        values.extend(fresh)
        numbers.update(zip(fresh, range(self._count, len(values)), strict=True))
        return NumberedValues(values, numbers)
