"""`Encodings` has valid arrays of a known layout, for arguments of any layout."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from types import ModuleType

import numpy as np
import pytest

from semcut.indexes import Encodings, InvalidEncodingsError, InvalidParameterError
from tests.indexes.generate import assert_same_records


def arrays(rows: int = 3) -> dict:
    """Return valid arrays of 4 classes, 32 bits and 2 feature values, all of them exact in float16."""
    p = np.tile(np.array([[0.5, 0.25, 0.125, 0.125]], np.float32), (rows, 1))
    return {
        "probabilities": p,
        "codes": np.arange(4 * rows, dtype=np.uint8).reshape(rows, 4),
        "features": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2),
        "ids": np.arange(rows, dtype=np.int64),
    }


LAYOUTS = {
    "float16": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a,
    "float64": lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a,
    "long double": lambda a: a.astype(np.longdouble) if a.dtype.kind == "f" else a,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "Fortran order": np.asfortranarray,
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every second column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim > 1 else a,
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "lists of lists": lambda a: a.tolist() if a.dtype != np.uint8 else a,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_becomes_contiguous_arrays_of_the_stated_types(layout):
    expected = arrays()
    batch = Encodings(**{name: LAYOUTS[layout](array) for name, array in expected.items()})
    for name, array in expected.items():
        held = getattr(batch, name)
        np.testing.assert_array_equal(held, array, strict=True)
        assert held.flags.c_contiguous
        assert held.dtype.isnative


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i8", ">u4"])
def test_ids_of_any_integer_type_become_int64(dtype):
    batch = Encodings(**arrays() | {"ids": np.array([3, 1, 2]).astype(dtype)})
    np.testing.assert_array_equal(batch.ids, np.array([3, 1, 2]), strict=True)


def test_the_largest_id_is_accepted():
    assert Encodings(**arrays(1) | {"ids": np.array([2**63 - 1], np.uint64)}).ids.tolist() == [2**63 - 1]


def test_arrays_that_fit_are_not_copied():
    given = arrays()
    batch = Encodings(**given)
    for name, array in given.items():
        assert np.shares_memory(getattr(batch, name), array)


def test_softmax_outputs_in_float16_are_probabilities():
    logits = np.random.default_rng(0).standard_normal((50, 1000)) * 3
    powers = np.exp(logits)
    p = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float16)
    given = arrays(50) | {"probabilities": p}
    assert Encodings(**given).probabilities.dtype == np.float32


@pytest.mark.parametrize("total", [1 - 9e-4, 1 + 9e-4])
def test_probabilities_may_sum_to_nearly_1(total):
    p = np.array([[total / 2, total / 2]], np.float32)
    assert len(Encodings(**arrays(1) | {"probabilities": p})) == 1


@pytest.mark.parametrize("total", [1 - 1.1e-2, 1 + 1.1e-2, 0.9876, 1.0123, 0, 0.5, 2, 100])
def test_probabilities_that_do_not_sum_to_1_are_refused(total):
    p = np.array([[0.5, 0.5], [total / 2, total / 2]], np.float32)
    with pytest.raises(InvalidEncodingsError, match=r"row 1 sum to .*expected 1"):
        Encodings(**arrays(2) | {"probabilities": p})


def softmax(rows, classes, scale=3):
    powers = np.exp(np.random.default_rng(classes).standard_normal((rows, classes)) * scale)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize(
    "rounded",
    [
        lambda p: np.rint(p * 255) / 255,
        lambda p: (np.rint(p * 255) / 255).astype(np.float32),
        lambda p: np.round(p, 3).astype(np.float16),
        lambda p: np.round(p, 4).astype(np.float16),
        lambda p: np.rint(p * 256).astype(np.float16) / np.float16(256),
    ],
)
def test_probabilities_that_were_rounded_to_steps_are_scaled(rounded, classes, scale):
    p = rounded(softmax(40, classes, scale))
    p = p[p.sum(axis=1, dtype=np.float64) >= 0.5]
    if len(p):
        held = Encodings(**arrays(len(p)) | {"probabilities": p}).probabilities
        np.testing.assert_allclose(held.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_that_no_rounding_explains_are_refused(dtype):
    for classes in (10, 100, 1000):
        for total in (0.7, 0.97, 1.03, 1.4):
            p = (softmax(1, classes) * total).astype(dtype)
            with pytest.raises(InvalidEncodingsError, match=r"row 0 sum to .*: divide each row by its sum"):
                Encodings(**arrays(1) | {"probabilities": p})


def test_a_softmax_is_advised_for_what_looks_like_logits_only():
    with pytest.raises(InvalidEncodingsError, match=r"sum to 0.7, .* divide each row by its sum, or pass any_mass"):
        Encodings(**arrays(1) | {"probabilities": np.array([[0.4, 0.3]])})
    with pytest.raises(InvalidEncodingsError, match=r"sum to 7, .* go up to 4, so apply a softmax if"):
        Encodings(**arrays(1) | {"probabilities": np.array([[4.0, 3.0]])})


@pytest.mark.parametrize("row", [[0.0, 0.0], [1.0, 1.0], [0.4, 0.3], [1e-30, 0.0]])
def test_rows_of_any_mass_are_kept_as_they_are_where_that_is_asked_for(row):
    batch = Encodings(**arrays(1) | {"probabilities": np.array([row], np.float32)}, any_mass=True)
    np.testing.assert_array_equal(batch.probabilities, np.array([row], np.float32))


def test_no_single_probability_is_above_one():
    for row, what in (([4.0, 3.0], "go up to 4"), ([np.nan, 0], "NaN"), ([-0.5, 1], "down to -0.5")):
        with pytest.raises(InvalidEncodingsError, match=f"probabilities of row 0 .*{what}"):
            Encodings(**arrays(1) | {"probabilities": np.array([row])}, any_mass=True)
    with pytest.raises(InvalidEncodingsError, match="any_mass = 'yes', expected True or False"):
        Encodings(**arrays(1), any_mass="yes")


def test_probabilities_just_below_zero_become_zero():
    given = np.array([[1, -1e-9], [0.5, 0.5]])
    held = Encodings(**arrays(2) | {"probabilities": given}).probabilities
    np.testing.assert_array_equal(held, np.array([[1, 0], [0.5, 0.5]], np.float32), strict=True)
    assert given[0, 1] == -1e-9
    with pytest.raises(InvalidEncodingsError, match=r"go down to -0\.01"):
        Encodings(**arrays(1) | {"probabilities": np.array([[1.01, -0.01]])})


def test_a_package_that_another_thread_is_importing_is_not_looked_into(monkeypatch):
    for name in ("torch", "scipy.sparse", "numpy.ma"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    probabilities = np.full((2, 4), 0.25, np.float32)
    batch = Encodings(probabilities=probabilities, codes=np.zeros((2, 4), np.uint8), features=[[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(batch.probabilities, probabilities)


def test_lists_of_tensors_are_read_as_whole_tensors_are():
    torch = pytest.importorskip("torch")
    whole = torch.full((3, 4), 0.25, dtype=torch.bfloat16, requires_grad=True)
    for rows in (list(whole), tuple(whole), [list(row) for row in whole]):
        assert (Encodings(**arrays() | {"probabilities": rows}).probabilities == 0.25).all()
    with pytest.raises(InvalidEncodingsError, match=r"list of tensors of shapes \(4,\) and \(3,\), expected one shape"):
        Encodings(**arrays() | {"probabilities": [whole[0], whole[1], whole[2, :3]]})


@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array"])
def test_sparse_probabilities_are_those_of_a_dense_matrix(kind):
    sparse = pytest.importorskip("scipy.sparse")
    largest = np.array([[0.7, 0, 0, 0.2], [0, 0, 0, 0], [0, 0.25, 0.75, 0]], np.float32)
    held = Encodings(**arrays(3) | {"probabilities": getattr(sparse, kind)(largest)}, any_mass=True)
    np.testing.assert_array_equal(held.probabilities, largest, strict=True)
    with pytest.raises(InvalidEncodingsError, match=r"row 0 sum to 0\.9"):
        Encodings(**arrays(3) | {"probabilities": getattr(sparse, kind)(largest)})


def test_a_sparse_matrix_that_memory_cannot_hold_is_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InvalidEncodingsError, match="probabilities cannot be read as an array"):
        Encodings(**arrays(3) | {"probabilities": sparse.csr_array((3, 1 << 55), dtype=np.float32)})


def test_logits_that_happen_to_sum_to_1_are_refused():
    with pytest.raises(InvalidEncodingsError, match=r"row 0 go down to -1.*softmax"):
        Encodings(**arrays(1) | {"probabilities": np.array([[2, -1]], np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["probabilities", "features"])
def test_values_that_are_not_finite_are_refused_and_the_row_is_named(name, value):
    given = arrays()
    given[name] = given[name].copy()
    given[name][2, 1] = value
    with pytest.raises(InvalidEncodingsError, match=rf"{name} of row 2 hold NaN or infinity, expected finite"):
        Encodings(**given)


def test_infinities_of_both_signs_are_refused():
    p = np.array([[np.inf, -np.inf, 1]], np.float32)
    with pytest.raises(InvalidEncodingsError, match="row 0 hold NaN or infinity"):
        Encodings(**arrays(1) | {"probabilities": p})


def test_float64_features_beyond_float32_are_refused():
    with pytest.raises(InvalidEncodingsError, match="features of row 1"):
        Encodings(**arrays(2) | {"features": np.array([[1, 1], [1e300, 1]])})


@pytest.mark.parametrize("length", [3e18, 1e15])
def test_long_features_whose_distances_fit_float32_are_accepted(length):
    assert len(Encodings(**arrays(1) | {"features": np.array([[length, 0]], np.float32)})) == 1


def test_rows_are_picked_by_slice_mask_and_numbers():
    batch = Encodings(**arrays(4), uris=["a", None, "c", "d"])
    assert batch[1:3].ids.tolist() == [1, 2]
    assert batch[1:3].uris == [None, "c"]
    assert batch[np.array([True, False, False, True])].ids.tolist() == [0, 3]
    assert batch[np.array([True, False, False, True])].uris == ["a", "d"]
    assert batch[[3, 0, 3]].ids.tolist() == [3, 0, 3]
    assert batch[[-1]].uris == ["d"]
    assert batch[2].ids.tolist() == [2]
    assert len(batch[4:]) == 0
    assert_same_records(batch[::-1][::-1], batch)


def test_no_rows_are_picked_by_an_empty_list():
    assert len(Encodings(**arrays(4), uris=["a", None, "c", "d"])[[]]) == 0


def test_batches_are_concatenated_in_order():
    first, second = Encodings(**arrays(2), uris=["a", "b"]), Encodings(**arrays(3), uris=[None, "d", "e"])
    both = Encodings.concatenate([first, second])
    assert both.ids.tolist() == [0, 1, 0, 1, 2]
    assert both.uris == ["a", "b", None, "d", "e"]
    assert_same_records(both[2:], second)


def test_ids_and_uris_are_kept_only_if_every_batch_has_them():
    with_both = Encodings(**arrays(2), uris=["a", "b"])
    without = Encodings(**{name: array for name, array in arrays(2).items() if name != "ids"})
    both = Encodings.concatenate([with_both, without])
    assert both.ids is None
    assert both.uris is None
    assert len(both) == 4


def test_batches_of_different_widths_are_not_concatenated():
    wider = arrays(2) | {"features": np.ones((2, 5), np.float32)}
    with pytest.raises(InvalidEncodingsError, match=r"features .*\[2, 5\]"):
        Encodings.concatenate([Encodings(**arrays(2)), Encodings(**wider)])
    with pytest.raises(InvalidEncodingsError, match="at least one"):
        Encodings.concatenate([])


@pytest.mark.parametrize(
    ("length", "normalised"),
    [(1, True), (1 + 9e-4, True), (1 - 9e-4, True), (1.002, False), (0.998, False), (0, False)],
)
def test_features_are_normalised_if_all_have_length_1(length, normalised):
    features = np.array([[0.6, 0.8], [0, length]], np.float32)
    assert Encodings(**arrays(2) | {"features": features}).normalised() is normalised


def test_an_empty_batch_is_valid_and_normalised():
    batch = Encodings(**arrays(0), uris=[])
    assert len(batch) == 0
    assert batch.normalised()


def test_uris_may_be_any_sequence_of_strings_and_nones():
    for uris in (
        ["a", None, "ü\N{SNOWMAN}"],
        ("a", None, "ü\N{SNOWMAN}"),
        np.array(["a", None, "ü\N{SNOWMAN}"], object),
    ):
        assert list(Encodings(**arrays(), uris=uris).uris) == ["a", None, "ü\N{SNOWMAN}"]
    held = Encodings(**arrays(), uris=np.array(["a", "b", "c"])).uris
    assert [type(uri) for uri in held] == [str, str, str]


def test_a_batch_cannot_be_assigned_to():
    batch = Encodings(**arrays())
    with pytest.raises(FrozenInstanceError):
        batch.ids = None


@pytest.mark.parametrize("rows", [[[0, 1], [2, 0]], np.zeros((0, 5), np.int64), np.ones((3, 4), bool)])
def test_rows_of_rows_are_no_batch(rows):
    with pytest.raises(InvalidParameterError, match="expected a slice, integers, or one boolean for each"):
        Encodings(**arrays())[rows]
