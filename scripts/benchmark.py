"""Compare semcut with FAISS's own indexes. The same as `semcut benchmark`: see its --help."""

from semcut.connector.cli.app import main
from semcut.connector.cli.benchmark_command import benchmark

if __name__ == "__main__":
    main(benchmark)
