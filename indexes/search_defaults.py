"""Defaults of a search, in the one place where they stand. Imports nothing, so command lines can show them at once.

`SemanticIndex.search`, `SearchParams`, the commands, the HTTP API and the benchmarks all take their defaults from here.

DEFAULT_K
    How many records a search returns for each query. Ten fill a page of pictures.

DEFAULT_CUTOFF
    t of Eq. 2: a record counts as relevant to a query only if R, the probability that both show the same class, is
    above t. The value 0.2 is the paper's own, and only the reading of Eq. 1 that `scoring.equations` explains makes it
    usable for any number of classes. With calibrated probabilities it drops a record when the network gives odds of
    more than four to one against "same class".

DEFAULT_SHORTLIST
    How many relevant records, nearest by Hamming distance, are re-ranked by exact distance or fused score. Ten times
    DEFAULT_K: codes of 64 bits order records coarsely, so the best ten by exact distance are searched for among the
    hundred nearest by code. None instead re-ranks every relevant record, exactly.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function"
(the cutoff); the other two are choices of this library, and benchmarks state them.
"""

from __future__ import annotations

DEFAULT_K = 10

DEFAULT_CUTOFF = 0.2

DEFAULT_SHORTLIST = 100
