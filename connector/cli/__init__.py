"""The `semcut` command, one sub-command a file."""
