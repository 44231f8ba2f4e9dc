"""The rules of the house: sizes and names of modules, imports between rooms, and words that are not used.

A room is a folder of `indexes` or `connector`; a module directly in one of these is a room of its own.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for folder in ("indexes", "connector") for path in (ROOT / folder).rglob("*.py"))

ALLOWED = {
    "faiss": {"indexes/faiss_library.py"},
    "torch": {
        "indexes/scanners/gpu_features.py",
        "indexes/scanners/hamming_torch_gpu.py",
        "connector/adoption/*",
        "connector/models/*",
        "connector/training/*",
        "connector/models/heads/*",
    },
    "pymilvus": {"indexes/milvus/pymilvus_internals.py"},
    "numba": {"indexes/kernels/jit.py", "connector/benchmark/measure/machine.py"},
    "llvmlite": {"indexes/kernels/jit.py"},
}
"""Where a library may be imported; of `indexes` alone for faiss, whose indexes a benchmark compares with."""

PRIVATE_WORDS = (
    r"likeness", r"distrust\w*", r"relax\w*", r"\bcards?\b", r"\blet(s|ting)? go of\b", r"\bso many\b", r"\bwhoever\b",
    r"\btold\b", r"\bhad again\b", r"\bgoes on from\b", r"\bas they like\b", r"\bshel(f|ves)\b", r"\bsomebody\b",
    r"\b(making|reach|views|searching|beginning|copies|real|told|ours|sources_of)\.py\b",
)  # fmt: skip
"""Words of the private language in which the project was first written: none of them is the field's."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> Iterator[str]:
    """Names of all modules that a module imports, at any place but for type checkers alone."""
    tree = tree_of(path)
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for child in block.body
        for node in ast.walk(child)
    }
    typed = {ast.unparse(node) for node in for_types if isinstance(node, ast.Import | ast.ImportFrom)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and ast.unparse(node) not in typed:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and ast.unparse(node) not in typed:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    """The file of a module of semcut, None for another module or for a name in one."""
    if not module.startswith("semcut."):
        return None
    path = ROOT / module.removeprefix("semcut.").replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2])


def test_a_module_is_one_reading() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}
    short = {name for name, lines in lengths.items() if lines < 30 and not name.endswith("__init__.py")}
    protocols = {name for name in short if "(Protocol)" in (ROOT / name).read_text()}
    assert short == protocols


def test_no_module_name_stands_twice() -> None:
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    assert [name for name, times in names.items() if times > 1] == []


def test_every_room_and_module_says_what_it_is_for() -> None:
    assert [name_of(path) for path in MODULES if not ast.get_docstring(tree_of(path))] == []


def test_imports_form_no_loop_between_rooms() -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        if path.name == "__init__.py" and len(path.relative_to(ROOT).parts) == 2:
            continue  # the public names of a layer, imported when they are used
        for module in imports_of(path):
            file = file_of(module)
            if file is not None and len(file.relative_to(ROOT).parts) > 1 and room_of(file) != room_of(path):
                needs[room_of(path)].add(room_of(file))
    doors = {"indexes/__init__.py", "connector/__init__.py"}
    left = {room: found - doors for room, found in needs.items()}
    while True:
        free = {room for room, found in left.items() if not found & left.keys()}
        if not free:
            break
        left = {room: found for room, found in left.items() if room not in free}
    assert {room: sorted(found & left.keys()) for room, found in left.items()} == {}


def test_indexes_know_nothing_of_the_connector() -> None:
    found = {name_of(path) for path in MODULES for module in imports_of(path) if module.startswith("semcut.connector")}
    assert {name for name in found if name.startswith("indexes/")} == set()


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_imported_in_few_places(library: str) -> None:
    found = {name_of(path) for path in MODULES for module in imports_of(path) if module.split(".")[0] == library}
    if library == "faiss":
        found = {name for name in found if name.startswith("indexes/")}
    if library == "numba":
        found = {name for name in found if not name.endswith("_numba.py")}
    allowed = ALLOWED[library]
    assert {
        name for name in found if name not in allowed and f"{Path(name).parent.as_posix()}/*" not in allowed
    } == set()


def test_nobody_imports_the_folders_by_their_own_names() -> None:
    """A user has no package `indexes` or `connector`; lint refuses them, this test the strings of scripts."""
    bare = re.compile(r"^\s*(from (indexes|connector)[. ]|import (indexes|connector)\b)", re.MULTILINE)
    files = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    found = [name for name in files if (ROOT / name).is_file() and bare.search((ROOT / name).read_text())]
    assert [name for name in found if name != "tests/test_house.py"] == []


def test_the_private_language_is_gone() -> None:
    pattern = re.compile("|".join(PRIVATE_WORDS), re.IGNORECASE)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    found = []
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".html", ".js", ".toml", ".yml", ".yaml") and path.is_file():
            if name == "tests/test_house.py" or path.is_symlink():
                continue
            if "explore/page/" in name or name.startswith("tests/browser/"):  # a page has cards
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if word := pattern.search(line):
                    found.append(f"{name}:{number}: {word[0]}")
    assert found == []
