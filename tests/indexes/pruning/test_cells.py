"""Pruning never skips a relevant record, and a cell that is marked as certain has relevant records only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import DamagedIndexError, IndexConfig
from semcut.indexes.probability_rows import row_masses
from semcut.indexes.pruning import cell_table, class_lists
from semcut.indexes.pruning import cells as cells_module
from semcut.indexes.pruning.cell_table import cell_count, cell_numbers
from semcut.indexes.pruning.cells import Cells, KeptCells
from semcut.indexes.pruning.class_lists import ClassLists, LargeWeights
from semcut.indexes.scoring import packed_rows
from semcut.indexes.scoring.equations import Similarity, is_relevant, relevance
from semcut.indexes.scoring.packed_rows import PackedRows
from tests.indexes.generate import PROPERTY, World, classified, peaked, probabilities, threads, worlds


def cells_of(config: IndexConfig, batches: list[np.ndarray]) -> tuple[Cells, np.ndarray]:
    """Return the cells after some batches, and the cell of every record."""
    cells, numbers = Cells.empty(config), [np.empty(0, np.int32)]
    for batch in batches:
        cells, added = cells.extended(batch)
        numbers.append(added)
    return cells, np.concatenate(numbers)


def check_pruning(cells: Cells, kept: KeptCells, of_record: np.ndarray, relevant: np.ndarray) -> None:
    """Check what pruning promises, record by record.

    Args:
        cells: the cells of the records.
        kept: the result of pruning for nq queries.
        of_record: (n,) the cell of each record.
        relevant: (nq, n) bool, which records are relevant to each query.
    """
    assert kept.certain.shape == (len(relevant), len(cells))
    for query in range(len(relevant)):
        scanned = kept.cells[query][kept.cells[query] >= 0]
        assert len(set(scanned.tolist())) == len(scanned), "a cell is scanned twice"
        assert kept.cells[query].tolist() == [*scanned, *[-1] * (kept.cells.shape[1] - len(scanned))]
        assert np.isin(of_record[relevant[query]], scanned).all(), "a relevant record is in a cell that is skipped"
        certain = np.flatnonzero(kept.certain[query])
        assert relevant[query, np.isin(of_record, certain)].all(), "a certain cell holds a record that is not relevant"
        assert kept.counts[query] == len(scanned)
        assert kept.codes[query] == np.isin(of_record, scanned).sum()
        assert kept.partitions[query] == len({int(cells.dominant()[cell]) for cell in scanned})


def pruned(world: World, cutoff: float) -> tuple[Cells, KeptCells, np.ndarray, np.ndarray]:
    """Return the arguments of `check_pruning` for a world."""
    cells, of_record = cells_of(world.config, [batch.probabilities for batch in world.batches])
    kept = cells.prune(Similarity(world.config).weights(world.queries.probabilities), cutoff)
    return cells, kept, of_record, is_relevant(world.relevances(), cutoff)


# pruning


@PROPERTY
@given(world=worlds(), torn=st.sampled_from([0, 0.5, 1e9]), many=st.sampled_from([0, 1 << 40]))
def test_no_relevant_record_is_ever_pruned(world, torn, many):
    with threads(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_TORN", torn)  # the second bound for no query, some, all
        patch.setattr(cells_module, "_MANY", many)  # by lists, by products
        for cutoff in world.cutoffs():
            check_pruning(*pruned(world, cutoff))


@PROPERTY
@given(world=worlds(rows=(1, 40)), many=st.sampled_from([0, 1 << 40]), data=st.data())
def test_no_relevant_record_is_pruned_at_a_cutoff_next_to_its_relevance(world, many, data):
    occurring = world.relevances().ravel()
    r = float(data.draw(st.sampled_from(occurring.tolist())))
    with threads(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_MANY", many)
        for cutoff in (r, np.nextafter(r, -1), np.nextafter(r, 2), float(np.nextafter(np.float32(r), np.float32(-1)))):
            if 0 <= cutoff < 1:
                check_pruning(*pruned(world, cutoff))


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 12),
    scale=st.sampled_from([1e-30, 1e-6, 1, 50, 1e6]),
    many=st.sampled_from([0, 1 << 40]),
)
def test_the_size_of_the_weights_does_not_matter(seed, classes, scale, many):
    """A matrix S can give weights of any size, also within one batch; no weight is negative."""
    rng = np.random.default_rng(seed)
    config = IndexConfig(classes=classes, bits=32, dim=1)
    p = probabilities(rng, 60, classes)
    cells, of_record = cells_of(config, [p])
    weights = rng.random((8, classes)) * rng.choice([0, 1e-6, 1], (8, classes)) * rng.choice([1, scale], (8, 1))
    r = relevance(weights[:, None], p[None])
    with threads(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_MANY", many)
        for cutoff in (0.0, 0.2, min(float(r.max()), 0.99), float(np.median(r.clip(0, 0.99)))):
            check_pruning(cells, cells.prune(weights, cutoff), of_record, is_relevant(r, cutoff))


def test_a_query_is_pruned_as_if_it_were_alone():
    """Earlier queries with much larger weights must not reduce the precision of the sums of a query."""
    rng = np.random.default_rng(0)
    config = IndexConfig(classes=80, bits=32, dim=1)
    cells, _ = cells_of(config, [peaked(rng, 5000, 80, sharpness=9)])
    huge = np.where(np.arange(80) < 60, 1e12, 0.0)
    weights = np.vstack([np.tile(huge, (50, 1)), peaked(rng, 20, 80, sharpness=9).astype(np.float64)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_MANY", 0)
        together, alone = cells.prune(weights, 0.2), cells.prune(weights[50:], 0.2)
    np.testing.assert_array_equal(together.counts[50:], alone.counts)
    assert alone.counts.min() > 0


def test_queries_of_many_large_weights_and_of_long_lists_look_at_all_cells():
    """A matrix S of overlapping classes produces such queries. They are pruned correctly, without more memory."""
    rng = np.random.default_rng(0)
    config = IndexConfig(classes=100, bits=32, dim=1)
    p = peaked(rng, 3000, 100, sharpness=9)
    cells, of_record = cells_of(config, [p])
    weights = np.vstack([rng.uniform(0.05, 0.5, (4, 100)), np.where(np.arange(100) < 60, 0.3, 0.0)[None]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_module, "_MANY", 0)
        for cutoff in (0.0, 1e-6, 0.05, 0.2, 0.4):
            kept = cells.prune(weights, cutoff)
            check_pruning(cells, kept, of_record, is_relevant(relevance(weights[:, None], p[None]), cutoff))
    assert LargeWeights.of(weights, 0.2).few.tolist() == [False] * 4 + [True]
    others = ClassLists.of(cells.envelopes, cells.sizes).pairs(LargeWeights.of(weights, 0.2), 0.2, 1)[2]
    assert others.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("cutoff", [0.05, 0.2, 0.5])
def test_pruning_skips_most_records_of_a_classifier_that_is_mostly_sure(classes, cutoff):
    rng = np.random.default_rng(classes)
    config = IndexConfig(classes=classes, bits=32, dim=1)
    p = peaked(rng, 3000, classes, sharpness=12)
    cells, of_record = cells_of(config, [p[:1000], p[1000:]])
    weights = peaked(rng, 50, classes, sharpness=12).astype(np.float64)
    kept = cells.prune(weights, cutoff)
    check_pruning(cells, kept, of_record, is_relevant(relevance(weights[:, None], p[None]), cutoff))
    assert kept.codes.mean() < len(p) * (1 if classes == 2 else 0.5)


def test_a_cell_whose_lower_bound_exceeds_the_cutoff_is_certain():
    config = IndexConfig(classes=3, bits=32, dim=1)
    cells, _ = cells_of(config, [np.array([[0.9, 0.1, 0], [0, 0.5, 0.5]], np.float32)])
    kept = cells.prune(np.array([[1.0, 0, 0], [0, 0.3, 0.7]]), 0.2)
    assert kept.certain.tolist() == [[True, False], [False, False]]  # 0.3 * 0.5 is not above the cutoff
    assert kept.cells.tolist() == [[0], [1]]


def test_an_index_without_records_has_nothing_to_scan():
    kept = Cells.empty(IndexConfig(classes=3, bits=32, dim=1)).prune(np.ones((2, 3)), 0.2)
    assert kept.cells.shape == (2, 0)
    assert kept.counts.tolist() == kept.codes.tolist() == kept.partitions.tolist() == [0, 0]


# tests of `check_pruning`


def example() -> tuple[Cells, KeptCells, np.ndarray, np.ndarray]:
    config = IndexConfig(classes=4, bits=32, dim=1)
    rng = np.random.default_rng(0)
    world = World(
        config=config,
        batches=[classified(rng, config, 200)],
        queries=classified(rng, config, 5),
        normalised=True,
        seed=0,
    )
    return pruned(world, 0.2)


def test_the_check_notices_a_skipped_cell_with_a_relevant_record():
    cells, kept, of_record, relevant = example()
    check_pruning(cells, kept, of_record, relevant)
    best = np.bincount(of_record[relevant[0]]).argmax()
    without = kept.cells.copy()
    row = without[0][without[0] != best]
    without[0] = np.append(row, -1)
    with pytest.raises(AssertionError, match="skipped"):
        check_pruning(cells, replace(kept, cells=without), of_record, relevant)


def test_the_check_notices_a_cell_that_is_wrongly_called_certain():
    cells, kept, of_record, relevant = example()
    wrong = kept.certain.copy()
    wrong[0, of_record[~relevant[0]][0]] = True
    with pytest.raises(AssertionError, match="certain"):
        check_pruning(cells, replace(kept, certain=wrong), of_record, relevant)


@pytest.mark.parametrize("name", ["counts", "codes", "partitions"])
def test_the_check_notices_wrong_counts(name):
    cells, kept, of_record, relevant = example()
    with pytest.raises(AssertionError):
        check_pruning(cells, replace(kept, **{name: getattr(kept, name) + 1}), of_record, relevant)


def test_the_check_notices_an_envelope_that_is_too_low():
    p = np.array([[0.6, 0.4]], np.float32)
    cells, of_record = cells_of(IndexConfig(classes=2, bits=32, dim=1), [p])
    query, relevant = np.array([[1.0, 0]]), np.array([[True]])  # R = 0.6
    check_pruning(cells, cells.prune(query, 0.5), of_record, relevant)
    lower = replace(cells, envelopes=cells.envelopes * np.float32(0.8))
    with pytest.raises(AssertionError, match="skipped"):
        check_pruning(lower, lower.prune(query, 0.5), of_record, relevant)


# cells


@PROPERTY
@given(world=worlds(rows=(0, 120)), chunk=st.sampled_from([1, 3, 1 << 14]))
def test_cells_grown_batch_by_batch_describe_their_records_exactly(world, chunk):
    p = world.records.probabilities
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_rows, "_ROWS", chunk)
        patch.setattr(cell_table, "_CHUNK", chunk)
        cells, of_record = cells_of(world.config, [batch.probabilities for batch in world.batches])
    numbers, confidence = cell_numbers(world.config, p)
    np.testing.assert_array_equal(cells.numbers[of_record], numbers)
    np.testing.assert_array_equal(confidence, p.max(axis=1))
    np.testing.assert_array_equal(cells.dominant()[of_record], p.argmax(axis=1))
    assert sorted(set(numbers.tolist())) == sorted(cells.numbers.tolist())
    for cell in range(len(cells)):
        members = p[of_record == cell]
        assert cells.sizes[cell] == len(members)
        np.testing.assert_array_equal(cells.envelopes[cell], members.max(axis=0))
        assert cells.lows[cell] == members.max(axis=1).min()
        np.testing.assert_array_equal(cells.masses[cell], row_masses(members).max())
    np.testing.assert_array_equal(
        cells.partition_sizes(), np.bincount(p.argmax(axis=1), minlength=world.config.classes)
    )


@PROPERTY
@given(world=worlds(rows=(0, 120)), stored=st.integers(1, 6))
def test_cells_are_the_same_from_packed_rows(world, stored):
    config = world.config.model_copy(update={"stored_probabilities": min(stored, world.config.classes - 1)})
    if not config.stored_probabilities:
        return
    cells = from_packed = Cells.empty(config)
    for batch in world.batches:
        rows = packed_rows.packed(batch.probabilities, config.stored_probabilities)
        dense = PackedRows(rows, config.classes).dense()
        cells, positions = cells.extended(dense)
        from_packed, same = from_packed.extended(PackedRows(rows, config.classes))
        np.testing.assert_array_equal(positions, same)
    for name in ("numbers", "sizes", "lows", "envelopes", "masses"):
        np.testing.assert_array_equal(getattr(from_packed, name), getattr(cells, name))


def test_a_cell_keeps_its_position_when_cells_are_added():
    config = IndexConfig(classes=5, bits=32, dim=1)
    rng = np.random.default_rng(4)
    first, _ = cells_of(config, [probabilities(rng, 10, 5)])
    second, _ = first.extended(probabilities(rng, 100, 5))
    assert len(second) > len(first)
    np.testing.assert_array_equal(second.numbers[: len(first)], first.numbers)


def test_cells_before_a_batch_are_not_changed_by_it():
    config = IndexConfig(classes=3, bits=32, dim=1)
    first, _ = cells_of(config, [np.array([[0.97, 0.03, 0]], np.float32)])
    first.extended(np.array([[0.96, 0, 0.04], [0.99, 0.01, 0]], np.float32))
    assert first.sizes.tolist() == [1]
    np.testing.assert_array_equal(first.envelopes, np.array([[0.97, 0.03, 0]], np.float32))
    np.testing.assert_array_equal(first.lows, np.array([0.97], np.float32))


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ([1, 0, 0, 0], 0),
        ([0.95, 0.05, 0, 0], 0),
        ([0.9, 0.1, 0, 0], 1),
        ([0.8, 0.2, 0, 0], 1),
        ([0.72, 0.14, 0.14, 0], 2),
        ([0.6, 0, 0.4, 0], 2 + 1 + 2),
        ([0.4, 0.3, 0.15, 0.15], 2 + 5 + 1 + 1),
        ([0.25, 0.25, 0.25, 0.25], 2 + 2 * 5 + 1 + 1),  # equal probabilities go to the lower class
        ([0, 0, 0.5, 0.5], 2 * 17 + 2 + 1 + 3),
        ([0, 0, 0.1, 0.9], 3 * 17 + 1),
    ],
)
def test_the_cell_of_a_record_follows_from_its_two_largest_probabilities(row, number):
    config = IndexConfig(classes=4, bits=32, dim=1, groups=4)  # W = 5, 17 kinds of cells
    numbers, confidence = cell_numbers(config, np.array([row], np.float32))
    assert numbers.tolist() == [number]
    assert confidence.tolist() == [np.float32(max(row))]


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), groups=st.integers(0, 5))
def test_there_are_never_more_cells_than_the_table_has(seed, classes, groups):
    config = IndexConfig(classes=classes, bits=32, dim=1, groups=groups)
    numbers, _ = cell_numbers(config, probabilities(np.random.default_rng(seed), 200, classes))
    assert numbers.min() >= 0
    assert numbers.max() < cell_count(config) <= classes * (5 + 6 * config.groups)


def test_no_more_records_are_removed_from_a_cell_than_it_has(config, batch):
    cells, of_record = Cells.empty(config).extended(batch.probabilities)
    assert cells.without(of_record).sizes.sum() == 0
    with pytest.raises(DamagedIndexError, match="a cell has fewer records than were removed"):
        cells.without(np.repeat(of_record[:1], 2))


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), cells=st.integers(0, 40), classes=st.integers(2, 50), values=st.integers(1, 99))
def test_class_lists_have_every_large_envelope_of_a_cell_with_records_in_order(seed, cells, classes, values):
    rng = np.random.default_rng(seed)
    envelopes = np.round(rng.random((cells, classes)) ** 8, 3).astype(np.float32)
    sizes = rng.integers(0, 3, cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_lists, "_ELEMENTS", values)
        lists = ClassLists.of(envelopes, sizes)
    assert len(lists.starts) == classes + 1
    assert lists.starts[-1] == len(lists.cells) == len(lists.values)
    for m in range(classes):
        part = slice(lists.starts[m], lists.starts[m + 1])
        expected = [cell for cell in range(cells) if sizes[cell] and envelopes[cell, m] >= class_lists.FLOOR]
        assert sorted(lists.cells[part].tolist()) == expected
        np.testing.assert_array_equal(lists.values[part], envelopes[lists.cells[part], m])
        assert (np.diff(lists.values[part]) <= 0).all()
