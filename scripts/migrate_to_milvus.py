"""Copy a stored index to Milvus, or back: the same as `semcut migrate`, see its --help."""

from indexes.cli import main
from indexes.milvus.cli import migrate

if __name__ == "__main__":
    main(migrate)
