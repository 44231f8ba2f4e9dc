"""Heads: every loss equals its formula, computed image by image and bit by bit; properties that all heads share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from semcut.connector.models.heads import HEADS, make_head, total_loss
from semcut.connector.models.heads.codewords import codewords

BITS, CLASSES, IMAGES = 16, 5, 7


def cross_entropy(logits: list[float], label: int, smoothing: float) -> float:
    total = math.log(math.fsum(math.exp(x) for x in logits))
    targets = [smoothing / len(logits) + (1 - smoothing) * (i == label) for i in range(len(logits))]
    return -math.fsum(t * (x - total) for t, x in zip(targets, logits, strict=True))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def paper(head, outputs, label, smoothing):
    activations = [1 / (1 + math.exp(-x)) for x in outputs]
    weight, bias = head.classifier.weight.tolist(), head.classifier.bias.tolist()
    logits = [
        math.fsum(w * a for w, a in zip(row, activations, strict=True)) + b for row, b in zip(weight, bias, strict=True)
    ]
    return cross_entropy(logits, label, smoothing)


def csq(head, outputs, label, smoothing):
    terms = []
    for x, centre in zip(outputs, head.centres[label].tolist(), strict=True):
        h, c = (math.tanh(x) + 1) / 2, (centre * (1 - smoothing) + 1) / 2
        central = -(c * math.log(h) + (1 - c) * math.log(1 - h))
        terms.append(central + 1e-4 * math.log(math.cosh(abs(2 * h - 1) - 1)))
    return mean(terms)


def orthohash(head, outputs, label, smoothing):
    length = math.sqrt(math.fsum(x * x for x in outputs))
    logits = []
    for m, target in enumerate(head.targets.tolist()):
        cosine = math.fsum(x * t for x, t in zip(outputs, target, strict=True)) / (length * math.sqrt(len(outputs)))
        logits.append(8 * (cosine - 0.2 * (m == label)))
    return cross_entropy(logits, label, smoothing)


def dpn(head, outputs, label, smoothing):
    return mean([max(1 - smoothing - x * t, 0) for x, t in zip(outputs, head.targets[label].tolist(), strict=True)])


FORMULAS = {"paper": paper, "csq": csq, "orthohash": orthohash, "dpn": dpn}


def example(name, seed=0):
    torch.manual_seed(seed)
    head = make_head(name, BITS, CLASSES).double()
    return head, torch.randn(IMAGES, BITS, dtype=torch.float64), torch.randint(0, CLASSES, (IMAGES,))


def test_every_head_has_a_formula_here():
    assert set(FORMULAS) == set(HEADS)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_their_formulas(name, smoothing):
    head, outputs, labels = example(name)
    expected = mean(
        [FORMULAS[name](head, x, label, smoothing) for x, label in zip(outputs.tolist(), labels.tolist(), strict=True)]
    )
    assert head.loss(outputs, labels, smoothing).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", HEADS)
def test_the_softmax_branch_is_trained_with_every_head(name):
    head, outputs, labels = example(name)
    logits = torch.randn(IMAGES, CLASSES, dtype=torch.float64)
    semantic = mean([cross_entropy(x, y, 0.1) for x, y in zip(logits.tolist(), labels.tolist(), strict=True)])
    for weight in (0.0, 0.3):
        total = total_loss(head, logits, outputs, labels, hash_weight=weight, label_smoothing=0.1)
        assert total.item() == pytest.approx(semantic + weight * head.loss(outputs, labels, 0.1).item())


@pytest.mark.parametrize("name", HEADS)
def test_minimising_the_loss_makes_outputs_fit_their_class(name):
    head, outputs, labels = example(name)
    hashed = outputs.clone().requires_grad_()
    optimiser = torch.optim.Adam([hashed, *head.parameters()], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        head.loss(head(hashed), labels, 0.0).backward()
        optimiser.step()
    assert (head.class_scores(head(hashed)).argmax(dim=1) == labels).all()


@pytest.mark.parametrize("name", [name for name in HEADS if name != "paper"])
def test_codes_of_fixed_codewords_are_their_signs(name):
    """Outputs with the signs of the codeword of a class have the highest score for that class."""
    head, _, _ = example(name)
    words = codewords(CLASSES, BITS).double()
    assert head.binarisation == "sign"
    assert (
        head.class_scores(words * torch.rand(CLASSES, BITS).double().add(0.5)).argmax(dim=1) == torch.arange(CLASSES)
    ).all()


def test_the_paper_s_head_has_the_paper_s_threshold():
    assert make_head("paper", 32, 3).binarisation == "mean"


@pytest.mark.parametrize(
    ("classes", "bits", "least"), [(10, 64, 32), (63, 64, 32), (128, 64, 32), (10, 48, 18), (200, 64, 18)]
)
def test_codewords_differ_in_many_bits(classes, bits, least):
    words = codewords(classes, bits)
    assert words.shape == (classes, bits)
    assert set(words.unique().tolist()) == {-1.0, 1.0}
    apart = (bits - words @ words.T) / 2
    assert apart[~torch.eye(classes, dtype=torch.bool)].min() >= least
    assert torch.equal(words, codewords(classes, bits))


@pytest.mark.parametrize("bits", [32, 64, 1024])
def test_codewords_are_rows_of_a_hadamard_matrix(bits):
    rows = hadamard(bits)
    assert np.array_equal(codewords(bits - 1, bits).numpy(), rows[1:])
    assert np.array_equal(codewords(2 * bits, bits).numpy(), np.vstack([rows, -rows]))
