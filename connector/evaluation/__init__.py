"""Measure how good the results of searches are, and what they cost; draw charts.

In reading order:

    metrics            compute average precision, of lists and of rankings with ties
    evaluate           measure mAP, precision and cost of searches of an index
    rankings           compare five rankings at several cutoffs on the same encodings, without an index (Fig. 4)
    hash_code_quality  measure the average precision of hash codes alone
    judged_search      measure searches for the same thing by ground truth, against comparisons with every record
    charts             draw charts in one style: curves labelled at their ends, a light and a dark theme

`semcut evaluate` uses `evaluate`, `rankings` and `judged_search`; `reproduce` uses `rankings`, `hash_code_quality` and
`charts`; `benchmark` uses `metrics` and `charts`; `training` chooses the epoch to keep by `hash_code_quality`. No
module needs torch, and only `charts` needs matplotlib.
"""
