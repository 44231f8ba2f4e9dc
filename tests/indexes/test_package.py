"""The public names of the package, and what their import loads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from semcut import indexes
from semcut.indexes.errors import install_hint

ROOT = Path(__file__).parents[2]


def test_the_names_that_are_exported():
    assert sorted(indexes.__all__) == [
        "Among",
        "BruteForceIndex",
        "Capabilities",
        "CheckpointError",
        "ClosedIndexError",
        "ConcurrentWriteError",
        "DamagedIndexError",
        "DataError",
        "DeviceError",
        "DuplicateIdError",
        "Encodings",
        "Explanation",
        "Expression",
        "FaissIndex",
        "FormatVersionError",
        "IndexConfig",
        "IndexExistsError",
        "IndexStats",
        "InvalidEncodingsError",
        "InvalidParameterError",
        "LockedError",
        "MissingDependencyError",
        "NearDuplicates",
        "NotAnIndexError",
        "RangeResult",
        "Records",
        "SearchHit",
        "SearchParams",
        "SearchResult",
        "SearchTrace",
        "SemanticIndex",
        "SemcutError",
        "ServerError",
        "StorageError",
        "UnknownIdError",
        "attribute",
        "averaged_records",
        "expanded_queries",
        "joined_query",
        "near_duplicates",
    ]
    assert all(hasattr(indexes, name) for name in indexes.__all__)


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_neither_torch_nor_the_connector():
    script = """
import sys
from semcut import indexes
print([name for name in ("torch", "semcut.connector", "sklearn") if name in sys.modules])
"""
    assert run(script) == "[]"


def test_without_faiss_the_error_says_how_to_install_it():
    script = """
import sys
sys.modules["faiss"] = None
import semcut
try:
    semcut.FaissIndex
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert run(script).startswith("MissingDependencyError faiss")
    assert "pip install" in run(script)


def test_a_faiss_that_does_not_load_is_one_sentence_where_it_is_first_needed(tmp_path):
    (tmp_path / "faiss.py").write_text("raise ImportError('libgomp.so.1 is missing')")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from semcut import indexes
try:
    indexes.FaissIndex
except indexes.MissingDependencyError as error:
    print(error)
from semcut.connector.cli.app import main
sys.argv = ["semcut", "info", "somewhere"]
try:
    main()
except SystemExit as end:
    print(end.code)
"""
    sentence, status = run(script).splitlines()
    assert sentence.startswith("faiss does not load (libgomp.so.1 is missing): run `pip install 'semcut[cpu]'`")
    assert status == "1"


def test_names_are_listed_before_they_are_used():
    script = """
import sys; from semcut import indexes
print(set(indexes.__all__) <= set(dir(indexes)), "numpy" in sys.modules, hasattr(indexes, "FaissIndx"))
"""
    assert run(script) == "True False False"


def test_what_to_install_is_said_for_a_checkout_too() -> None:
    """semcut is not on every package index, so no message names the extra alone."""
    found = [
        file.relative_to(ROOT).as_posix()
        for folder in ("indexes", "connector", "scripts/package")
        for file in (ROOT / folder).rglob("*.py")
        if not file.is_symlink() and re.search(r"pip install\s+\W*semcut\[|'semcut\[", file.read_text())
    ]
    assert found == ["indexes/errors.py"]
    assert install_hint("fast") == "run `pip install 'semcut[fast]'`, in a checkout `pip install '.[fast]'`"
