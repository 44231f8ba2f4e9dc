"""Compare semcut with FAISS's own indexes: the same data, in the same run, by the same measures.

Modules in reading order:

    datasets/           what is searched
      dataset           a data set on the disk: an index of records, an index of queries, labels
      from_indexes      copy two indexes of a user into a data set
      fitted_records    generate records that are fitted to a source, in any number and with any number of classes
      strata            the source, sorted and cut into groups of similar records
      class_variants    more classes than the source has
      fit_quality       how similar generated records and their source are
      dataset_tasks     which data sets a run needs, and how to make each
    methods/            what is compared
      structures        protocols: structures are built once, methods search them
      semcut_methods    semcut
      faiss_builders    FAISS's indexes, built
      faiss_methods     FAISS's indexes, searched
      exact_rerank      the re-rank of the results of FAISS's indexes of codes
      grids             which methods search a data set
    measure/            the run; its outcome is raw results
      run_plan          what a run does with every data set
      run               measures all data sets, one after the other
      ground_truth      exact answers
      timing            times all methods in turn, round by round
      stage_times       times the parts of semcut's search
      process_memory    memory of the process
      machine           the machine, and its number of threads
      result_columns    what is kept of each method's results
      raw_results       files of arrays
      dataset_facts     everything else about the run of a data set, as dataset.json
    report/             from raw results to a page
      figures           the figures of a run, as dataclasses
      result_metrics    recall, average precision, speed, losses
      summarise         computes all figures of a run
      benchmark_plots   plots
      page_text         fixed texts and the style sheet of the page
      html_parts        tables, pictures and numbers of a page
      html_page         the page
      write_report      writes run.json, plots and page

`semcut benchmark` (`connector.cli.benchmark_command`) calls `dataset_tasks`, `run` and `write_report`. Scripts use
`machine` and `process_memory`; `scripts/check_targets.py` checks the figures of a run. The content of run.json is read
by `connector.reproduce`, so its keys stay as they are. The names of data sets, of directories and of files of raw
results stay too: an interrupted run continues with them.

A new index to compare with is a builder in `faiss_builders` and an entry in `faiss_methods`; an index of another
library is a class with the protocol of `structures.Structure` and an entry in `grids`.

Needs matplotlib (extra `benchmark`). Nothing here imports torch, except that `dataset_tasks.digits` imports it to train
a network the first time that a run has no data.
"""
