"""Bits by Eq. 3, compared with the formula bit by bit; bits by signs; packing."""

from __future__ import annotations

import math

import numpy as np
import torch

from semcut.connector.models.hashing import binarise, pack


def test_eq_3() -> None:
    outputs = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) * 3
    bits = binarise(outputs, "mean")
    for row in range(50):
        activations = [1 / (1 + math.exp(-x)) for x in outputs[row].tolist()]
        mean = math.fsum(activations) / 64
        assert bits[row].tolist() == [a - mean > 0 for a in activations]


def test_an_image_whose_outputs_are_all_equal_has_no_bit_set() -> None:
    assert not binarise(torch.full((1, 32), 0.7), "mean").any()


def test_signs() -> None:
    assert binarise(torch.tensor([[0.5, -0.5, 0.0, 2.0]]), "sign").tolist() == [[True, False, False, True]]


def test_the_first_bit_is_the_highest_of_the_first_byte() -> None:
    bits = torch.zeros(1, 32, dtype=torch.bool)
    bits[0, 0] = bits[0, 15] = True
    packed = pack(bits)
    assert packed.dtype == np.uint8
    assert packed.tolist() == [[128, 1, 0, 0]]
