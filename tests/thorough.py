"""Choose how many cases the tests try: a part of them by default, all with HYPOTHESIS_PROFILE=thorough.

Both profiles run every test. `quick`, the default, draws half of the examples of a property, makes every call that
touches the disk fail in one mode, and searches with the CPU engines only. `make test-full` sets `thorough`.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=50)
settings.register_profile("thorough", max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

THOROUGH = settings.get_current_profile_name() == "thorough"


def examples(count: int) -> int:
    """Return the number of examples of a property to draw: `count` if tests are thorough, otherwise half of it."""
    return count if THOROUGH else (count + 1) // 2
