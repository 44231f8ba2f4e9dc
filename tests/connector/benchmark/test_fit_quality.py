import numpy as np
import pytest

from semcut.connector.benchmark.datasets.fit_quality import statistics
from semcut.indexes import Encodings


def two_classes(rows, certainty):
    """Generate classes 0 and 1 in turn, with codes of zeros or ones and features on two axes."""
    labels = np.arange(rows) % 2
    p = np.where(labels[:, None] == np.arange(2), certainty[:, None], 1 - certainty[:, None])
    codes = np.where(labels[:, None] == 1, 255, 0) * np.ones((rows, 4))
    return Encodings(
        probabilities=p.astype(np.float32),
        codes=codes.astype(np.uint8),
        features=np.eye(2, 3, dtype=np.float32)[labels],
    ), labels


def test_statistics_of_two_classes_have_known_values():
    certainty = np.repeat([0.9, 0.4], [150, 50])
    records, labels = two_classes(200, certainty)
    queries, query_labels = two_classes(20, np.full(20, 1.0))
    found = statistics(records, labels, queries, query_labels)
    assert found["top-1 accuracy"] == 0.75
    assert found["top-1 accuracy of queries"] == 1
    assert found["mean of max p"] == pytest.approx(0.75 * 0.9 + 0.25 * 0.6)
    assert found["max p, 10% quantile"] == pytest.approx(0.6)
    assert found["max p, 50% quantile"] == pytest.approx(0.9)
    # R is 0.9 or 0.4 for the same class, 0.1 or 0.6 for the other
    assert found["relevant at t = 0.2"] == pytest.approx((0.75 + 2 * 0.25) / 2)
    assert found["relevant at t = 0.5"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["Hamming distance in a class"] == found["Hamming distance in a class, deviation"] == 0
    assert found["distance in a class"] == 0
    assert found["Hamming distance between classes"] == 32
    assert found["distance between classes"] == pytest.approx(2**0.5)
    assert found["mAP@10, Hamming and re-rank"] == 1
    assert found["Hamming distance of the nearest"] == found["Hamming distance of the 100th"] == 0
    assert found["distance of the best in the shortlist"] == 0


def test_answers_of_the_wrong_class_lower_map():
    records, labels = two_classes(200, np.full(200, 0.9))
    queries, query_labels = two_classes(20, np.full(20, 0.9))
    wrong = query_labels.copy()
    wrong[:5] = 1 - wrong[:5]
    assert statistics(records, labels, queries, wrong)["mAP@10, Hamming and re-rank"] == pytest.approx(0.75)
