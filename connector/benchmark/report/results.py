"""What a run leaves for its readers: run.json, PNG files and the page, all made from raw results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from semcut.connector.benchmark.measure import raw_results
from semcut.connector.benchmark.report import benchmark_plots, figures, html_page


def write(out: Path, command: str | None = None) -> dict[str, Any]:
    """Compute all figures of a run and write run.json, plots/*.png and report.html.

    Args:
        out: its directory.
        command: that made it, for the page.

    Returns:
        The content of run.json: `command` and `datasets` (see `figures`).
    """
    datasets: list[dict[str, Any]] = [plain(one) for one in figures.of_run(out)]
    content = {"command": command, "datasets": datasets}
    raw_results.write_json(out / "run.json", content)
    (out / "plots").mkdir(exist_ok=True)
    pictures = benchmark_plots.of_run(datasets)
    for name, (light, _) in pictures.items():
        (out / "plots" / f"{name}.png").write_bytes(light)
    (out / "report.html").write_text(html_page.page(content, pictures))
    return content


def plain(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
