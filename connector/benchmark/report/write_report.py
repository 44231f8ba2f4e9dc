"""Write the report of a run from its raw results: run.json, plots as PNG files, and the page report.html.

run.json has all figures: `RunFigures.as_dict`. run.json and report.html are replaced in one step, so an interruption
leaves either the previous file or the new one.
"""

from __future__ import annotations

from pathlib import Path

from semcut.connector.benchmark.report import benchmark_plots, html_page
from semcut.connector.benchmark.report.figures import RunFigures
from semcut.connector.benchmark.report.summarise import run_figures
from semcut.indexes.storage.atomic_write import write_file, write_json


def write_report(out: Path, command: str | None = None) -> RunFigures:
    """Compute all figures of a run and write run.json, plots/*.png and report.html.

    Args:
        out: the directory of the run.
        command: the command that made the run, which the page names.

    Raises:
        DataError: as for `run_figures`; nothing is written.
    """
    figures = run_figures(out, command)
    plots = benchmark_plots.plots_of_run(figures)
    page = html_page.page(figures, plots)  # all is made before anything is replaced
    write_json(out / "run.json", figures.as_dict())
    (out / "plots").mkdir(exist_ok=True)
    for name, (light, _) in plots.items():
        write_file(out / "plots" / f"{name}.png", light)
    write_file(out / "report.html", page)
    return figures
