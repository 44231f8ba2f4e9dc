"""Average precision of codes equals that of the ranking "hamming" in the comparison of all rankings."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.evaluation.hash_code_quality import code_average_precision, hamming_all_pairs, leave_one_out_map
from semcut.connector.evaluation.rankings import RANKING_NAMES, compare
from tests.connector.evaluation.conftest import CONFIG, KS


def test_hamming_distances_of_all_pairs_count_differing_bits(data):
    records, _, queries, _ = data
    distances = hamming_all_pairs(queries.codes, records.codes)
    for query, code in ((0, 0), (3, 17), (19, 299)):
        differing = int.from_bytes(queries.codes[query]) ^ int.from_bytes(records.codes[code])
        assert distances[query, code] == bin(differing).count("1")


def test_codes_alone_are_ranked_like_codes_of_records(data, comparison):
    records, labels, queries, query_labels = data
    at_all, at_k = code_average_precision(records.codes, labels, queries.codes, query_labels, ks=KS)
    assert at_all == pytest.approx(comparison.at_all[0, 0])
    assert at_k == pytest.approx(comparison.at_k[0, 0])


def test_leave_one_out_equals_a_comparison_without_the_record(data):
    records, labels, _, _ = data
    labels = labels.copy()
    labels[7] = 4  # the only record of its class
    found = leave_one_out_map(records.codes, records.probabilities.astype(float), labels)
    rows = np.delete(np.arange(len(labels)), 7)
    precisions = []
    for row in rows:
        others = np.delete(np.arange(len(labels)), row)
        one = slice(row, row + 1)
        alone = compare(records[others], labels[others], records[one], labels[one], CONFIG, ks=(1,), cutoffs=(0.0,))
        precisions.append([alone.at_all[RANKING_NAMES.index(name), 0, 0] for name in ("hamming", "relevance")])
    assert found == pytest.approx(np.mean(precisions, axis=0).tolist(), rel=1e-6)
    assert leave_one_out_map(records.codes[:1], records.probabilities[:1].astype(float), labels[:1]) is None
