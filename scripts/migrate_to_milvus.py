"""Copy a stored index to Milvus, or back. The same as `semcut migrate`: see its --help."""

from semcut.connector.cli.app import main
from semcut.connector.cli.migrate_command import migrate

if __name__ == "__main__":
    main(migrate)
