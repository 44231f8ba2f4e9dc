"""How much the tests try: enough for every change, or with HYPOTHESIS_PROFILE=thorough, as in `make test-full`, all.

Both profiles run every test. `quick`, the default, draws half of the examples of a property, lets every call that
touches the disk fail in one of the ways in which it can, and searches with the engines of the processor alone.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=50)
settings.register_profile("thorough", max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

THOROUGH = settings.get_current_profile_name() == "thorough"


def examples(count: int) -> int:
    """How many examples of a property to draw: `count` if tests are thorough."""
    return count if THOROUGH else (count + 1) // 2
