"""Compare semcut with other indexes, of FAISS and other libraries: on the same data, in one run, by the same measures.

Modules in reading order:

    datasets/           what is searched
      run_folders       what a run may delete and write in its directory
      array_files       reads files of arrays, after comparing their headers with what is expected
      dataset           a data set on the disk: an index of records, an index of queries, labels
      from_indexes      copies two indexes of a user into a data set
      fitted_records    generates records that are fitted to a source, in any number and with any number of classes
      strata            sorts the source and cuts it into groups of similar records
      class_variants    draws more classes than the source has
      fit_quality       measures how similar generated records and their source are
      dataset_tasks     lists the data sets that a run needs, and creates each of them
    methods/            what is compared
      structures        protocols: structures are built once, methods search them
      semcut_methods    searches with semcut
      faiss_builders    builds FAISS's indexes
      faiss_methods     searches with FAISS's indexes
      exact_rerank      re-ranks the results of indexes of codes
      joined_graph      a graph of FAISS that sees classes: features joined with the roots of probabilities
      argmax_lists      lists by dominant class, scanned exactly
      usearch_indexes   graphs of usearch
      rabitq_indexes    quantised indexes of rabitqlib
      grids             chooses the methods that search a data set
    measure/            the run; its outcome is raw results
      run_plan          the plan: what a run does with every data set
      run               measures all data sets, one after the other
      ground_truth      finds exact answers
      timing            times all methods in turn, round by round
      stage_times       times the parts of semcut's search
      process_memory    measures the memory of the process
      machine           describes the machine, and sets the number of threads
      result_columns    collects the arrays that are stored of each method's results
      raw_results       names, reads and writes the files of arrays
      dataset_facts     everything else about the run of a data set: dataset.json
      run_limits        finds the complete results of a run, and limits their size
      stored_results    reads all of these for a report, and checks them
    report/             from raw results to a page
      figures           the figures of a run, as dataclasses
      result_metrics    computes recall, average precision, speed, losses
      rivals            compares semcut's defaults with the best setting of every other index
      summarise         computes all figures of a run
      benchmark_plots   draws the plots
      page_text         fixed texts and the style sheet of the page
      html_parts        writes tables, pictures and numbers of a page
      html_page         writes the page
      write_report      writes run.json, the plots and the page

`semcut benchmark` (`connector.cli.benchmark_command`) calls `dataset_tasks`, `run` and `write_report`. Scripts use
`machine` and `process_memory`; `scripts/check_targets.py` checks the figures of a run. The content of run.json is read
by `connector.reproduce`, so its keys stay as they are. The names of data sets, of directories and of files of raw
results stay too: an interrupted run continues with them. A run's directory may come from someone else, so a new file or
folder in it also needs an entry in `run_folders`, and a new array one in `stored_results`.

A new index to compare with needs a builder in `faiss_builders` and an entry in `faiss_methods`; an index of another
library needs a class with FAISS's `search`, as in `usearch_indexes`, and an entry in `grids`.

Needs matplotlib (extra `benchmark`); usearch and rabitqlib (extra `rivals`) are optional. Only `dataset_tasks.digits`
imports torch, to train a network the first time that a run has no data.
"""
