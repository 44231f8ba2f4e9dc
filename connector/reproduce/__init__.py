"""Make the paper's tables from trained networks: mAP by method and by category, and time by number of categories.

In reading order, first what measures networks by a protocol:

    network_measurements  `Measurement`: the figures of one network, query by query; save them to a file and load them
    stored_facts          check what a file of figures holds
    measured_index        the index of a network, made once
    measure_network       measure a network by a protocol, unless its file of figures exists
    frozen_encoder        encode images with networks that share a frozen backbone; run the backbone only once
    baselines             compute LSH and ITQ codes, which need no training, from the same features
    method_groups         group networks that differ only in their seed into one method, with mean and spread
    tables                make tables of groups and of a benchmark, as Markdown and for a terminal
    csv_files             write the figures of networks as CSV
    quality_plots         draw Fig. 4, and how networks were trained
    training_commands     write the commands that trained the networks

then what measures them on sets with ground truth, in which the same thing is to be found:

    query_times           measure the time of a query of an index, and of codes and features without one
    truth_measurement     `TruthMeasurement`: the figures of one network on one set
    measure_truth         measure a network on a set, unless its file of figures exists
    judged_tables         make tables of groups of such networks
    truth_section         write the sections of the page, and the files that belong to them

and the page of both:

    markdown_text         write texts and commands that may come from someone else into the page
    results_folder        recognise a directory of results, and keep the commands that measured the networks
    results_page          write the page of a directory of results

Only `semcut reproduce` uses this package: it calls `measure_network`, `measure_truth`, `results_page.keep_speed` and
`results_page.write`, and prints one of the `tables`.
"""
