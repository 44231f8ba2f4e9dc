"""A fixture that starts processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.indexes.kernels.processes import Processes, killed_at_the_end


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Return an object that starts processes, which are killed at the end of a test."""
    with killed_at_the_end() as started:
        yield started
