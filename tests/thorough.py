"""How much the tests try: a sample, quickly, or everything, thoroughly.

`make test-full` sets HYPOTHESIS_PROFILE=thorough. Both profiles run every property and every fault; `quick` draws fewer
examples and tries an even sample of places where a fault may strike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

T = TypeVar("T")

settings.register_profile("quick", max_examples=20)
settings.register_profile("thorough", max_examples=60)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

THOROUGH = settings.get_current_profile_name() == "thorough"


def examples(count: int) -> int:
    """How many examples of a property to draw, of `count` that are drawn when tests are thorough."""
    return count if THOROUGH else max(5, count * 20 // 60)


def sample(values: Sequence[T], count: int) -> Sequence[T]:
    """All values when tests are thorough, else `count` of them at even distances, with the first and the last."""
    if THOROUGH or len(values) <= count:
        return values
    return [values[place * (len(values) - 1) // (count - 1)] for place in range(count)]
