"""The paper's tables, made again from trained networks: quality by method and by category, time by categories.

    measured.py     what a protocol measures of one network, query by query, kept in a file
    baselines.py    codes that need no training, LSH and ITQ, of the same features
    groups.py       networks that differ in their seed alone, as one method with mean and spread
    tables.py       tables of groups, and of a benchmark; as Markdown and as CSV
    plots.py        Fig. 4, and how networks were trained
    page.py         everything of a directory, as one page
    cli.py          `semcut reproduce`

A directory of results has a folder for each protocol, with a folder for each network in it: the index that was
searched, and what was measured. So a network is encoded and measured once, and the page can be made again at any time.
"""
