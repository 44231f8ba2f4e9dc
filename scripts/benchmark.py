"""Compare semcut with FAISS's own indexes: the same as `semcut benchmark`, see its --help."""

from semcut.connector.benchmark.cli import benchmark
from semcut.indexes.cli import main

if __name__ == "__main__":
    main(benchmark)
