"""The `semcut` command: one module for each sub-command, which reads options and prints; the library does the work.

In reading order:

    app                the command group: find sub-commands by entry point, run one, print an error as one line
    terminal           what commands show: progress bar, table, JSON, messages, errors
    options            options that several commands share
    image_options      options that choose images, and the images that they choose
    ground_truth_report    what evaluate --ground-truth does and prints
    truth_options          the option --ground-truth, and the images that it labels for training

    maintain a stored index       info_command, verify_command, compact_command, backup_command, migrate_command
    from images to an index       train_command, index_command
    use an index                  search_command, explore_command, evaluate_command
    try and compare               demo_command, benchmark_command, reproduce_command
    prepare a machine             warmup_command

To add a command, write NAME_command.py and register it in pyproject.toml under `semcut.commands`. Import heavy packages
inside the function that runs the command. Scripts and tests are the only others that import this package: `app.main`,
single commands, and the tables, messages and progress bars of `terminal`.
"""
