"""Copy a stored index to Milvus, or back: the same as `semcut migrate`, see its --help."""

from semcut.indexes.cli import main
from semcut.indexes.milvus.cli import migrate

if __name__ == "__main__":
    main(migrate)
