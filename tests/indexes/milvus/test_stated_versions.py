"""The guide to Milvus states the versions that the tests and the compose file use."""

from __future__ import annotations

import re
from pathlib import Path

from semcut.indexes.milvus.pymilvus_internals import TESTED_VERSIONS

ROOT = Path(__file__).parents[3]


def test_the_guide_states_what_has_run():
    guide = (ROOT / "docs" / "milvus.md").read_text()
    table = guide[guide.index("## Which versions") : guide.index("## What it costs")]
    makefile = (ROOT / "Makefile").read_text()
    cores = re.search(r"CORE_VERSIONS := (.+)", makefile)
    server = re.search(r"milvus==([\d.]+)", makefile)
    compose = re.search(r"milvusdb/milvus:v([\d.]+)", (ROOT / "docker" / "compose.yaml").read_text())
    assert cores
    assert server
    assert compose
    lines = table.splitlines()
    for version in [*cores[1].split(), server[1], *TESTED_VERSIONS["milvus-lite"], *TESTED_VERSIONS["pymilvus"]]:
        assert any(version in line and "| run" in line for line in lines), version
    assert any(compose[1] in line and "read only" in line for line in lines)
