"""Measure how good the answers of an index are, and draw the results.

In reading order:

    metrics       average precision of lists, and of rankings with ties
    evaluate      mAP, precision and cost of searches of an index
    rankings      five rankings at several cutoffs, compared on the same encodings without an index (Fig. 4)
    code_quality  average precision of hash codes alone
    charts        the style of all charts: curves labelled at their ends, a light and a dark theme

`semcut evaluate` uses `evaluate` and `rankings`; the room `reproduce` uses all modules, `benchmark` uses `metrics` and
`charts`, and `training` chooses the epoch to keep by `code_quality`. Only `charts` needs matplotlib, and nothing here
needs torch.
"""
