"""The defaults of a search, defined only here. Imports no other module, so command lines can show them at once.

`SemanticIndex.search`, `SearchParams`, the commands, the HTTP API and the benchmarks all take their defaults from here.

DEFAULT_K
    The number of records that a search returns for each query. Ten images fill a page.

DEFAULT_CUTOFF
    t of Eq. 2: a record counts as relevant to a query only if R, the probability that both show the same class, is
    above t. The value 0.2 is the paper's own, and only the reading of Eq. 1 that `scoring.equations` explains makes it
    usable for any number of classes. With calibrated probabilities it drops a record when the network gives odds of
    more than four to one against "same class".

DEFAULT_SHORTLIST
    The number of relevant records, nearest by Hamming distance, that are re-ranked by exact distance or fused score. It
    is ten times DEFAULT_K: codes of 64 bits order records coarsely, so the ten best by exact distance are chosen among
    the hundred nearest by code. A shortlist of None re-ranks every relevant record.

DEFAULT_DUPLICATE_BITS, DEFAULT_DUPLICATE_DISTANCE
    Two records are near-duplicates if their codes differ in at most this number of bits and their features, of length
    1, are at most this far apart.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function"
(the cutoff). The other two defaults are choices of this library; benchmarks state which values they use.

A user who wants other values passes them with each search: there is no global setting to change.
"""

from __future__ import annotations

DEFAULT_K = 10

DEFAULT_CUTOFF = 0.2

DEFAULT_SHORTLIST = 100

DEFAULT_DUPLICATE_BITS = 12

DEFAULT_DUPLICATE_DISTANCE = 0.25
