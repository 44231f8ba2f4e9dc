"""Make the paper's tables from trained networks: quality by method and by category, and time by number of categories.

In reading order:

    network_measurements  `Measurement`: the figures of one network, query by query, and their file
    measure_network       measure a network by a protocol, unless its file is there
    frozen_encoder        encode images with networks that share a frozen backbone, computing the backbone once
    baselines             codes that need no training, LSH and ITQ, of the same features
    method_groups         networks that differ only in their seed, as one method with mean and spread
    tables                tables of groups and of a benchmark, as Markdown and for a terminal; CSV files
    quality_plots         Fig. 4, and how networks were trained
    results_page          everything of a directory of results, as one page

A directory of results has a folder for each protocol, and in it a folder for each network: the index that was searched,
and the file of measurements. So a network is encoded and measured once, and the page can be made again at any time.

`semcut reproduce` is the only user of this room; it calls `measure_network.measure_network` and `results_page.write`.
"""
