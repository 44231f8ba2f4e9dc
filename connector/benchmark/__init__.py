"""Benchmarks of semcut against FAISS's own indexes: the same data, in the same run, by the same measures.

    dataset.py          what is searched: an index, labelled queries, and where they come from
    real.py, fitted.py  data sets of real encodings, and of records fitted to them in any number and of any classes
    strata.py, copies.py, likeness.py  of fitted records: what they are drawn from, more classes than the source has,
                        and how like the source they are
    methods.py          what is compared: structures that are built once, and ways to search them
    ours.py             semcut's
    faiss_methods.py    FAISS's
    grids.py            which of them a data set is searched with
    truth.py            what the right answers are: labels, and exact answers
    timing.py           times all methods in turn, round by round
    profile.py          times parts of semcut's search
    memory.py, machine.py  what the process holds, and what it runs on
    sources.py          makes data sets when their turn comes
    run.py              all of this for every data set
    raw.py              raw results in files
    measures.py         recall, average precision, latencies, losses, from raw results
    figures.py          all figures of a run
    targets.py          what must be reached, and whether it is
    plots.py            pictures of a run
    report.py           one page about a run, for people; its fixed wording is in wording.py
    results.py          run.json, pictures and page of a run
    cli.py              `semcut benchmark`

Needs matplotlib (extra `benchmark`). Nothing here imports torch unless `--quick` has to train a network.
"""
