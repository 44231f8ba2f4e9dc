"""Override constants of the library during a test, so that small data exceeds them."""

from __future__ import annotations

from typing import Any

import pytest

from semcut.indexes.search_tuning import TUNING


def override(patch: pytest.MonkeyPatch, owner: Any, name: str, value: Any) -> None:
    """Set a constant of a module or class, or a field of the frozen `TUNING`, until the patch is undone."""
    if owner is TUNING:
        assert hasattr(TUNING, name)
        patch.setitem(vars(TUNING), name, value)
    else:
        patch.setattr(owner, name, value)
