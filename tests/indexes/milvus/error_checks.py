"""Check that calls fail with one clear error, and in time."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest

from semcut.indexes import IndexConfig, SemcutError
from semcut.indexes.milvus import MilvusIndex

SLACK = 3  # seconds that a call may take longer than its timeout


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""

    def fail(*_) -> None:
        raise AssertionError(f"this takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def refused(error: type[SemcutError], message: str, *hidden: str) -> Iterator[None]:
    """Expect an error of exactly this class, in one line, that contains no hidden text and has no cause."""
    with pytest.raises(error, match=message) as raised:
        yield
    assert type(raised.value) is error
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    text = str(raised.value)
    assert "\n" not in text
    for secret in hidden:
        assert secret not in text


def ways_to_connect(uri, **options) -> list[Callable[[], object]]:
    """Return functions that connect in every way: `create`, `open` and `drop`, in this order."""
    config = IndexConfig(classes=3, bits=32, dim=4)
    return [
        lambda: MilvusIndex.create(uri, config, **options),
        lambda: MilvusIndex.open(uri, **options),
        lambda: MilvusIndex.drop(uri, **options),
    ]
