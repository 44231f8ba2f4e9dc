"""A call that loops for ever is ended, with one error, and what ends it reaches nothing else."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from semcut.connector.models import call_limits, forward_cost, outline_limits
from semcut.connector.models.call_limits import CallLimits
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.forward_cost import image_bytes
from semcut.indexes.errors import CheckpointError
from tests.connector.adoption.test_forged_networks import forge

SENTENCE = "it takes more than {}: it is wrong"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_limits, "_LOOK_SECONDS", 0.002)
    monkeypatch.setattr(call_limits, "_GRACE", 0.0)


def loop() -> None:
    while True:
        pass


def stubborn_loop() -> None:
    with contextlib.suppress(BaseException):  # as a library may do
        loop()
    loop()


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "limits"]


@pytest.mark.parametrize("call", [loop, stubborn_loop])
def test_a_loop_that_calls_nothing_back_is_ended(call: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_limits, "_AGAIN", 0.05)
    with pytest.raises(CheckpointError, match=r"^it takes more than 0\.01 s: it is wrong$"):
        CallLimits(0.01, SENTENCE).run(call)
    assert threads() == []


def test_a_process_that_grows_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_limits, "_BYTES", 4 << 20)
    kept: list[bytes] = []

    def grow() -> None:
        while True:
            kept.append(b"\1" * (1 << 16))

    with pytest.raises(CheckpointError, match=r"^it takes more than 4 MiB of memory: it is wrong$"):
        CallLimits(60, SENTENCE).run(grow)


def test_what_ends_a_call_comes_in_the_call_or_not_at_all() -> None:
    ended = 0
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for number in range(100):
            limits = CallLimits(0.0, SENTENCE)
            steps = 10_000 * (number % 20)  # the call ends about when the watch does something
            try:
                assert limits.run(lambda: sum(1 for _ in range(steps))) == steps  # noqa: B023
            except CheckpointError:
                ended += 1
            assert sum(1 for _ in range(1_000)) == 1_000
    finally:
        sys.setswitchinterval(old)
    assert ended
    assert threads() == []


def test_other_errors_pass_and_results_are_returned() -> None:
    limits = CallLimits(60, SENTENCE)
    assert limits.run(lambda: 5) == 5
    with pytest.raises(KeyError):
        limits.run(lambda: {}[1])
    limits.check()
    assert threads() == []


def test_a_network_that_loops_over_pairs_of_points_is_not_built_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from transformers.models.levit import modeling_levit  # before the time is counted

    assert modeling_levit
    monkeypatch.setattr(outline_limits, "_SECONDS", 0.3)
    one = {"hidden_sizes": [16] * 3, "num_attention_heads": [1] * 3, "depths": [1] * 3, "key_dim": [4] * 3}
    settings = {
        "model_type": "levit",
        "image_size": 1024,
        "patch_size": 1,
        "architectures": ["LevitForImageClassification"],
        **one,
    }
    with pytest.raises(CheckpointError, match=r"more than 0\.3 s to build"):
        Checkpoint.load(forge(tmp_path, "transformers", "", settings))


def test_following_an_image_takes_no_time_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import Tensor, nn

    class Loop(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            loop()
            return images

    class Operations(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            while True:
                images = images + 1

    image_bytes(nn.Identity(), 8)  # what torch loads for the first one
    monkeypatch.setattr(forward_cost, "_SECONDS", 0.05)
    for network in (Loop(), Operations()):
        with pytest.raises(CheckpointError, match=r"takes more than 0\.05 s: its settings or its image size"):
            image_bytes(network, 8)
