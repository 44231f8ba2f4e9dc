"""The `semcut` command. Every sub-command has a module of its own; the work itself is done by the library.

In reading order:

    app                the command group: finds sub-commands by entry point, runs one, turns errors into one line
    terminal           what commands show: progress bar, table, JSON, messages, errors
    options            options that several commands share
    image_options      options of commands that work on labelled images

    look after a stored index     info_command, verify_command, compact_command, backup_command, migrate_command
    from images to an index       train_command, index_command
    use an index                  search_command, explore_command, evaluate_command
    try and compare               demo_command, benchmark_command, reproduce_command
    prepare a machine             warmup_command

To add a command, write NAME_command.py and register it in pyproject.toml under `semcut.commands`. Import heavy packages
inside the function that runs the command. Only scripts and tests import this package: `main`, single commands, and the
tables and progress bars of `terminal`.
"""
