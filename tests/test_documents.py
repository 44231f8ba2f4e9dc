"""The documents are true: snippets run, links have targets, commands exist, and the site builds and works offline.

Snippets marked `python` or `sh` run in order, in one directory for each document. It contains the output of the demo, a
folder of photos and an archive with the layout that the documents describe. `SMALLER` shortens long runs; apart from
that, snippets run as they are. Commands of `make` are checked for existence only: running them from a test would run
the tests again. Snippets marked `console` do not run, since they need a server or hours; their commands and options
must exist.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import semcut

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SMALLER = {
    "--limit 5000": "--limit 60", "--limit 1000": "--limit 20", "--epochs 10": "--epochs 1",
    "--freeze --dim 128": "--freeze --dim 128 --image-size 64 --epochs 2",
    "10_000": "1_000", "19_800": "1_800", "20_299": "2_299",
}  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def named(page: Path) -> str:
    """Return the name of a page for the ids of tests."""
    return str(page.relative_to(ROOT))


def snippets(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Find the snippets of a page in these languages: pairs of language and text, in order."""
    return [(language, text) for language, text in FENCE.findall(page.read_text()) if language in languages]


RUNNING = [page for page in PAGES if snippets(page, "python", "sh")]

# Snippets


def write_image(target: Path | io.BytesIO, number: int, rng: np.random.Generator) -> None:
    """Write a 32 x 32 JPEG image whose colour depends on the number of its class."""
    pixels = rng.integers(0, 60, (32, 32, 3)) + np.array([number * 19, 100, 190 - number * 19])
    Image.fromarray(pixels.astype(np.uint8)).save(target, "JPEG")


def write_archive(path: Path, rng: np.random.Generator) -> None:
    """Write a tar archive of ten classes with folders train/ and test/."""
    with tarfile.open(path, "w:gz") as tar:
        for number, name in enumerate(CLASSES):
            for part, count in (("train", 12), ("test", 4)):
                for image in range(count):
                    encoded = io.BytesIO()
                    write_image(encoded, number, rng)
                    member = tarfile.TarInfo(f"{part}/{name}/{image:04d}.jpg")
                    member.size = encoded.tell()
                    encoded.seek(0)
                    tar.addfile(member, encoded)


def write_photos(folder: Path, rng: np.random.Generator) -> None:
    """Write a folder of three class folders with images."""
    for number, name in enumerate(CLASSES[:3]):
        (folder / name).mkdir(parents=True)
        for image in range(12):
            write_image(folder / name / f"{image:04d}.jpg", 4 * number, rng)


def run(command: list[str], place: Path, shared: Path) -> str:
    """Run a command in a directory as a user of the environment does; it must succeed."""
    environment = {
        **os.environ,
        "SEMCUT_CACHE": str(shared / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the files that documents use, once for all test processes: the demo's output, photos and an archive."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    shared = base / "documents"
    with FileLock(f"{shared}.lock"):
        if not (shared / "report.json").is_file():
            files = shared / "files"
            files.mkdir(parents=True)
            rng = np.random.default_rng(0)
            write_archive(files / "cifar10.tar.gz", rng)
            write_photos(files / "photos", rng)
            write_image(files / "holiday.jpg", 4, rng)
            report = run(["semcut", "demo", "--json"], files, shared)
            (shared / "report.json").write_text(report)
    return shared


@pytest.mark.guides
def test_the_demo_reaches_the_map_that_the_readme_promises(shared: Path) -> None:
    promised = float(re.search(r"reports\s+a\s+mAP@all\s+of\s+([0-9.]+)", README.read_text())[1])
    demo: dict[str, Any] = json.loads((shared / "report.json").read_text())
    assert demo["overall"]["map_all"] == pytest.approx(promised, abs=0.02)
    assert (shared / "files" / "demo" / "digits.png").is_file()


@pytest.mark.guides
@pytest.mark.parametrize("page", RUNNING, ids=named)
def test_every_snippet_runs(page: Path, shared: Path, tmp_path: Path) -> None:
    """A guide may repeat a snippet of the README; such a snippet runs for the README only."""
    shutil.copytree(shared / "files", tmp_path, dirs_exist_ok=True)
    elsewhere = [] if page == README else snippets(README, "python", "sh")
    for language, text in snippets(page, "python", "sh"):
        if (language, text) in elsewhere:
            continue
        for long, short in SMALLER.items():
            text = text.replace(long, short)
        if language == "python":
            run([sys.executable, "-W", "error", "-c", text], tmp_path, shared)
        elif not text.startswith("make "):
            run(["bash", "-euc", text], tmp_path, shared)


def test_the_pages_with_snippets_are_among_those_that_run() -> None:
    names = {named(page) for page in RUNNING}
    assert {"README.md", "CONTRIBUTING.md", "docs/photos.md", "docs/python.md", "docs/milvus.md"} <= names


# Commands


def calls(page: Path) -> Iterator[list[str]]:
    """Find the calls of `semcut` in the snippets of a page: the words after `semcut`."""
    for _, text in snippets(page, "sh", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", re.sub(r"(^|\s)#.*", "", line)):
                words = shlex.split(part.replace("$(", "").replace("$", ""))
                if "semcut" in words[:-1] and "--volume" not in words:
                    yield words[words.index("semcut") + 1 :]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "results.md"], ids=named)
def test_commands_and_options_exist(page: Path) -> None:
    """Except in results.md, which names commands as they were on the day of a measurement."""
    commands = {entry.name: entry for entry in entry_points(group="semcut.commands")}
    for command, *words in calls(page):
        known = {option for parameter in commands[command].load().params for option in parameter.opts}
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= known, f"semcut {command}: {given - known}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


# Links, figures and names


def prose(page: Path) -> str:
    """Return a page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """Find the anchors of the headings of a page, as GitHub and the site create them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower())) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_and_picture_has_a_target(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    for name in re.findall(r"`((?:indexes|connector|scripts|tests|docker|docs)/[\w/.-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_the_readme_is_a_landing_page() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_figures_of_the_readme_are_those_of_the_guide() -> None:
    rows = [line for line in README.read_text().splitlines() if re.match(r"\|.*\d ms \|", line)]
    assert len(rows) >= 6
    assert set(rows) <= set((DOCS / "benchmarks.md").read_text().splitlines())


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert "::: semcut.indexes.errors" in pages, "which has all errors"
    for name in semcut.__all__:
        if not name.endswith("Error"):
            assert re.search(rf"^::: semcut\.(indexes|connector)\.{name}$", pages, re.MULTILINE), name


@pytest.mark.guides
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--config-file", ROOT / ".mkdocs.yml", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES) / 2
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?([^\" >]+)", page.read_text())
        loaded += re.findall(r"<link[^>]+href=\"?([^\" >]+)", page.read_text())
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page.name
