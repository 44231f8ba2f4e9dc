"""Numba kernel of `near_pairs`: finds candidates, record by record, in windows of sorted lists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import kernel, popcount, read_only
from semcut.indexes.search.near_pairs import Lists, Radius


@kernel
def find_candidates(
    records: Lists,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    lists: Lists,
    labels: NDArray[np.int32],
    radius: Radius,
    found_a: NDArray[np.int32],
    found_b: NDArray[np.int32],
) -> tuple[int, int]:
    """Find candidates as `near_pairs` does, until the next record could have more than fit.

    Args:
        records, starts, ends, lists, labels, radius: as for `near_pairs`.
        found_a, found_b: get the candidates; they are at least as long as the longest stretch.

    Returns:
        The number of candidates, and the number of records whose candidates they are.
    """
    count, square = 0, np.float32(radius.sketch) * np.float32(radius.sketch)
    reach = np.float32(radius.sketch)
    for record in range(starts.shape[0]):
        if count + ends[record] - starts[record] > found_a.shape[0]:
            return count, record
        x, row = records.sketches[record, 0], records.rows[record]
        low, high = starts[record], ends[record]
        while low < high:
            middle = (low + high) // 2
            if lists.sketches[middle, 0] < x - reach:
                low = middle + 1
            else:
                high = middle
        for at in range(low, ends[record]):
            if lists.sketches[at, 0] > x + reach:
                break
            different = np.uint64(0)
            for word in range(records.codes.shape[1]):
                different += popcount(records.codes[record, word] ^ lists.codes[at, word])
            if different > np.uint64(radius.bits):
                continue
            total = np.float32(0)
            for place in range(records.sketches.shape[1]):
                apart = records.sketches[record, place] - lists.sketches[at, place]
                total += apart * apart
            if total > square or labels[row] == labels[lists.rows[at]]:
                continue
            found_a[count], found_b[count] = row, lists.rows[at]
            count += 1
    return count, starts.shape[0]


def candidates_of(
    records: Lists,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    lists: Lists,
    labels: NDArray[np.int32],
    radius: Radius,
    most: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Call the kernel with room for `most` candidates, at least as many as the longest stretch.

    Returns:
        Two arrays of the numbers of the records of each candidate, and the number of records that are done.
    """
    a, b = np.empty(most, np.int32), np.empty(most, np.int32)
    inputs = [Lists(read_only(each.rows), read_only(each.codes), read_only(each.sketches)) for each in (records, lists)]
    stretches = read_only(starts), read_only(ends)
    count, answered = find_candidates(inputs[0], *stretches, inputs[1], read_only(labels), radius, a, b)
    return a[:count], b[:count], answered
