"""How much the tests try: a sample, quickly, or everything, thoroughly.

`make test-full` sets HYPOTHESIS_PROFILE=thorough. Both profiles run every property and every fault; `quick` draws fewer
examples and tries an even sample of places where a fault may strike.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=50)
settings.register_profile("thorough", max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

THOROUGH = settings.get_current_profile_name() == "thorough"


def examples(count: int) -> int:
    """How many examples of a property to draw, of `count` that are drawn when tests are thorough."""
    return count if THOROUGH else (count + 1) // 2
