"""Fitting shorter features and codes: what FAISS computes, as one matrix and one vector."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from semcut.connector.adoption.code_fitting import fit_projection, fit_reduction
from semcut.connector.adoption.sample import unit
from semcut.indexes import InvalidParameterError


@pytest.fixture
def directions() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((400, 90)) * np.linspace(2, 0.1, 90) + 1
    return unit(drawn.astype(np.float32))


def test_the_reduction_is_pca(directions: np.ndarray) -> None:
    reduction = fit_reduction(directions, 70)
    reference = faiss.PCAMatrix(90, 70)
    reference.train(directions)
    assert np.allclose(reduction.apply(directions), reference.apply(directions), atol=1e-5)
    assert np.allclose(reduction.apply(directions).mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("whitening", [0.5, 1.0])
def test_whitening_divides_components_by_a_power_of_their_deviation(directions: np.ndarray, whitening: float) -> None:
    plain, white = (fit_reduction(directions, 20, one).apply(directions) for one in (0.0, whitening))
    expected = plain / plain.std(axis=0) ** whitening
    assert np.allclose(unit(white), unit(expected), atol=1e-4)  # the length does not count
    if whitening == 1:
        assert np.allclose(white.std(axis=0) / white.std(), 1, atol=0.01)


@pytest.mark.parametrize("bits", [32, 88])
def test_codes_are_those_of_itq(directions: np.ndarray, bits: int) -> None:
    reference = faiss.ITQTransform(90, bits, True)
    reference.train(directions)
    found, expected = fit_projection(directions, bits, "itq").apply(directions), reference.apply(directions)
    clear = np.abs(expected) > 1e-4  # a value of 0 has no sign
    assert ((found > 0) == (expected > 0))[clear].all()
    assert clear.mean() > 0.99


@pytest.mark.parametrize("bits", [32, 88, 120])
def test_a_rotation_is_orthogonal_and_centred(directions: np.ndarray, bits: int) -> None:
    weight, bias = fit_projection(directions, bits, "rotation", seed=1)
    product = weight @ weight.T if bits <= 90 else weight.T @ weight
    assert np.allclose(product, np.eye(len(product)), atol=1e-5)
    assert np.allclose((directions @ weight.T + bias).mean(axis=0), 0, atol=1e-5)
    assert np.array_equal(weight, fit_projection(directions, bits, "rotation", seed=1).weight)
    assert not np.array_equal(weight, fit_projection(directions, bits, "rotation", seed=2).weight)


def test_equation_3_takes_the_first_features(directions: np.ndarray) -> None:
    found = fit_projection(directions, 32, "equation3").apply(directions)
    assert np.array_equal(found, directions[:, :32])


def test_codes_keep_more_neighbours_if_they_are_fitted(directions: np.ndarray) -> None:
    def kept(codes: np.ndarray) -> float:
        distances = (codes[:, None] != codes[None]).sum(axis=2)
        found = np.argsort(distances, axis=1, kind="stable")[:, :40]
        nearest = np.argsort(-directions @ directions.T, axis=1)[:, 1:6]
        return float(np.mean([len({*a} & {*b}) / 5 for a, b in zip(found.tolist(), nearest.tolist(), strict=True)]))

    itq, rotation = (fit_projection(directions, 32, how).apply(directions) > 0 for how in ("itq", "rotation"))
    assert kept(itq) > kept(rotation) + 0.05


@pytest.mark.parametrize(("how", "bits"), [("itq", 96), ("equation3", 96)])
def test_codes_that_features_do_not_allow_are_refused(directions: np.ndarray, how: str, bits: int) -> None:
    with pytest.raises(InvalidParameterError, match=f"bits = {bits}, expected at most 90"):
        fit_projection(directions, bits, how)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="dim = 91"):
        fit_reduction(directions, 91)
    with pytest.raises(InvalidParameterError, match="expected at most 9 for 10 images"):
        fit_reduction(directions[:10], 10)
