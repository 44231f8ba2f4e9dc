"""The wheel, installed with `semcut[cpu]` alone in a clean environment: the index API works without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.guides

ROOT = Path(__file__).parents[1]

INDEX_API = """
import sys
import numpy as np
from semcut import Encodings, FaissIndex, IndexConfig

rng = np.random.default_rng(0)
features = rng.standard_normal((500, 16)).astype(np.float32)
features /= np.linalg.norm(features, axis=1, keepdims=True)
records = Encodings(
    probabilities=rng.dirichlet(np.full(5, 0.2), 500).astype(np.float32),
    codes=rng.integers(0, 256, (500, 8), dtype=np.uint8),
    features=features,
    ids=np.arange(500),
)
with FaissIndex.create(sys.argv[1], IndexConfig(classes=5, bits=64, dim=16)) as index:
    index.add(records)
with FaissIndex.open(sys.argv[1]) as index:
    result = index.search(records[:10], k=3, shortlist=None)
assert (result.ids[:, 0] == np.arange(10)).all(), result.ids
assert "torch" not in sys.modules
"""


def run(*command: object, status: int = 0, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the files that belong in it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for package in ("indexes", "connector", "scripts/package"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, symlinks=True, ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", source / "dist", source)
    (built,) = (source / "dist").glob("semcut-*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a clean virtual environment with `semcut[cpu]`; return its folder bin/."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=True)
    run(home / "bin" / "python", "-m", "pip", "install", "--quiet", f"{wheel}[cpu]")
    return home / "bin"


def site(clean: Path) -> Path:
    """Return the folder of installed packages."""
    return Path(run(clean / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def test_the_index_api_works_without_torch(clean: Path, tmp_path: Path) -> None:
    installed = run(clean / "python", "-m", "pip", "list")
    assert "faiss-cpu" in installed
    assert "torch" not in installed
    run(clean / "python", "-c", INDEX_API, tmp_path / "index", cwd=tmp_path)
    assert "500" in run(clean / "semcut", "info", tmp_path / "index", cwd=tmp_path)


def test_importing_the_connector_says_what_to_install(clean: Path, tmp_path: Path) -> None:
    shown = run(clean / "python", "-c", "from semcut import Connector", status=1, cwd=tmp_path)
    assert "pip install 'semcut[train]'" in shown.splitlines()[-1]
    assert "torch" in shown.splitlines()[-1]


def test_commands_that_need_torch_say_what_to_install(clean: Path, tmp_path: Path) -> None:
    shown = run(clean / "semcut", "train", "digits/train", "--out", "x", status=1, cwd=tmp_path)
    assert "pip install 'semcut[train]'" in shown
    assert "Traceback" not in shown
    assert "info" in run(clean / "semcut", "--help", cwd=tmp_path)


def test_the_package_is_typed_and_installs_no_other(clean: Path) -> None:
    assert (site(clean) / "semcut" / "py.typed").is_file()
    names = {line.split("/")[0] for line in next(site(clean).glob("semcut-*/RECORD")).read_text().splitlines()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"semcut", ".."}  # .. leads to the command


def test_modules_named_connector_and_indexes_next_to_a_script_are_not_imported(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "connector.py").write_text("raise ImportError('a module of the user')")
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "__init__.py").write_text("raise ImportError('a package of the user')")
    script = tmp_path / "script.py"
    script.write_text(INDEX_API)
    run(clean / "python", script, tmp_path / "index", cwd=tmp_path)
    assert "500" in run(clean / "semcut", "info", "index", cwd=tmp_path)


def test_the_wheel_contains_the_page(clean: Path) -> None:
    page = site(clean) / "semcut" / "connector" / "explore" / "page"
    assert {file.name for file in page.iterdir()} == {"index.html", "explore.css", "explore.js"}


def test_a_wheel_built_from_the_source_distribution_has_the_same_files(wheel: Path, tmp_path: Path) -> None:
    """A source distribution has files where the repository has links."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, wheel.parents[1])
    (source,) = tmp_path.glob("semcut-*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source)
    (again,) = tmp_path.glob("semcut-*.whl")
    assert sorted(ZipFile(again).namelist()) == sorted(ZipFile(wheel).namelist())


def test_two_faiss_wheels_at_once_are_refused(clean: Path, tmp_path: Path) -> None:
    other = site(clean) / "faiss_gpu-1.15.1.dist-info"
    other.mkdir()
    try:
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: faiss-gpu\nVersion: 1.15.1\n")
        shown = run(clean / "python", "-c", "from semcut import FaissIndex", status=1, cwd=tmp_path)
        assert "faiss-cpu and faiss-gpu are both installed" in shown.splitlines()[-1]
    finally:
        shutil.rmtree(other)


def test_without_faiss_a_command_that_needs_it_says_what_to_install(clean: Path, tmp_path: Path) -> None:
    run(clean / "python", "-c", INDEX_API, tmp_path / "index", cwd=tmp_path)
    faiss = site(clean) / "faiss"
    faiss.rename(faiss.with_name("hidden"))
    try:
        shown = run(clean / "python", "-c", "from semcut import FaissIndex", status=1, cwd=tmp_path)
        assert "pip install 'semcut[cpu]'" in shown.splitlines()[-1]
        for command in ("compact", "info"):
            shown = run(clean / "semcut", command, tmp_path / "index", status=1, cwd=tmp_path)
            assert "pip install 'semcut[cpu]'" in shown
            assert "Traceback" not in shown
    finally:
        faiss.with_name("hidden").rename(faiss)
