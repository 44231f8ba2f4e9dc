"""Benchmarks of semcut against FAISS's own indexes: the same data, in the same run, by the same measures.

    dataset.py      what is searched: an index, labelled queries, and where they come from
    fitted.py       records fitted to real encodings, in any number and of any number of classes
    methods.py      what is compared: semcut and FAISS's indexes, each a small class with build and search
    truth.py        what the right answers are: labels, and exact answers
    measures.py     recall, average precision, latencies: computed from raw results, afterwards
    run.py          builds and times all methods in turn, and keeps raw results
    plots.py        pictures of a run
    report.py       one page about a run, for people
    cli.py          `semcut benchmark`

Needs matplotlib (extra `benchmark`). Nothing here imports torch unless `--quick` has to train a network.
"""
