"""Every snippet of the README runs, in order, in one directory.

Long runs are scaled down by `SMALLER`, on an archive of the same layout as the one that is named; everything else runs
to the letter. `make` targets are checked for existence: running them from a test would be running the test.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALLER = {
    "--limit 5000": "--limit 60", "--limit 1000": "--limit 20", "--epochs 10": "--epochs 1",
    "10_000": "1_000", "19_800": "1_800", "20_299": "2_299",
}  # fmt: skip


def snippets() -> list[tuple[str, str]]:
    return re.findall(r"^```(python|sh)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the demo's outputs and a small `cifar10.tar.gz`: ten classes, train/ and test/."""
    place = tmp_path_factory.mktemp("readme")
    with tarfile.open(place / "cifar10.tar.gz", "w:gz") as tar:
        rng = np.random.default_rng(0)
        classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
        for number, name in enumerate(classes):
            for part, count in (("train", 12), ("test", 4)):
                for image in range(count):
                    pixels = rng.integers(0, 60, (32, 32, 3)) + np.array([number * 19, 100, 190 - number * 19])
                    encoded = io.BytesIO()
                    Image.fromarray(pixels.astype(np.uint8)).save(encoded, "JPEG")
                    member = tarfile.TarInfo(f"{part}/{name}/{image:04d}.jpg")
                    member.size = encoded.tell()
                    encoded.seek(0)
                    tar.addfile(member, encoded)
    return place


def run(command: list[str], place: Path) -> str:
    environment = {
        **os.environ,
        "SEMCUT_CACHE": str(place / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(place: Path) -> dict[str, Any]:
    """What the demo reports; what it makes is used by some of the snippets."""
    return json.loads(run(["semcut", "demo", "--json"], place))


def test_the_demo_reaches_what_it_promises(demo: dict[str, Any], place: Path) -> None:
    promised = float(re.search(r"reports a mAP@all of ([0-9.]+)", README)[1])
    assert demo["overall"]["map_all"] == pytest.approx(promised, abs=0.02)
    assert (place / "demo" / "digits.png").is_file()


def test_every_snippet_runs(demo: dict[str, Any], place: Path) -> None:
    seen = 0
    for language, text in snippets():
        for long, short in SMALLER.items():
            text = text.replace(long, short)
        if language == "python":
            run([sys.executable, "-W", "error", "-c", text], place)
        elif "make " not in text:
            run(["bash", "-euc", text], place)
        seen += 1
    assert seen >= 5


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_pictures_and_files_that_are_named_exist() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", README):
        if not name.startswith("http"):
            assert (ROOT / name).exists(), name
