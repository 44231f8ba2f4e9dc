"""What a report says whatever came out: what is compared, how to read figures, how they look."""

from __future__ import annotations

ABOUT = """
<p>Image retrieval, answered in two ways on the same encodings. <b>semcut</b> skips what a query cannot be relevant to,
by the probabilities of its classes, scans the rest by Hamming distance of codes, and orders a shortlist by exact
distance of features or by the fused score. <b>FAISS's indexes</b> search all codes, or all features, and know nothing
of classes. Every method was built and timed in the same process, in turn, with the same number of threads.</p>
"""

CONVENTIONS = """
<ul>
<li><b>Two truths, kept apart.</b> <i>Labels</i>: a result is right if it has the query's class; mAP@k divides by the
right records that k places could hold, mAP@all by all right records of the index, found or not, and P@k by k.
<i>Exact answers</i>: the nearest features (recall L2), or the best by the method's own equations, relevance above the
cutoff and then distance or fused score (recall Eq. 2-4), found by an exhaustive search that is compared with the
equations over every record for some queries of each run.</li>
<li><b>Recall counts ties</b>: a result no farther than the k-th exact answer is right. A method that disregards
records on purpose cannot have full recall of nearest features; a method that orders by features cannot know which of
them are of the right class. Neither figure alone says which is better: labels do.</li>
<li><b>Methods.</b> IndexBinary*: Hamming distance of codes, alone or with the same exact re-rank of their nearest
records by feature that semcut has, in C++ on the same threads. IndexFlatL2, IndexIVFFlat, IndexHNSWFlat, IndexIVFPQ
with refinement: Euclidean distance of features. One graph or set of lists is built per kind and searched with a grid of
its one knob.</li>
<li><b>Time.</b> Rounds over all methods in turn, after one to warm up. Before each group of calls there is a pause, in
which threads of the method before stop, and 20 ms of queries that are not timed, since processors are slow at first;
queries/s is the size of the batch over the median time of a call. A latency is one call with one query, so p99 includes
what else the machine does. FAISS searches one query on one thread in most of its indexes. Where a batch would take too
long it is cut: <i>queries</i> says how many results a line is of.</li>
<li><b>Exact answers at low cutoffs</b> look at a good part of all records, so they are known for fewer queries.</li>
<li><b>Raw results</b>, ids and seconds of every call, lie beside this page in <code>raw/</code>, all figures in
<code>run.json</code>. Compare ratios inside a run, not milliseconds between machines.</li>
</ul>
"""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --quiet: #666; --line: #ddd; --shade: #f6f6f4;
  --good: #00735a; --bad: #b3400a; --accent: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --ink: #e6e6e6; --quiet: #a0a0a0; --line: #3a3d42;
  --shade: #202327; --good: #2fc79a; --bad: #ff9457; --accent: #56b4e9 } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1.2rem 5rem }
h1 { font-size: 1.9rem; margin: 0 0 1rem } h2 { margin: 3rem 0 .5rem; border-bottom: 2px solid var(--line) }
h3 { margin: 2rem 0 .4rem } p, li { max-width: 46rem } a { color: var(--accent) }
.quiet { color: var(--quiet); font-size: .9rem }
figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption { max-width: 46rem; color: var(--quiet);
  font-size: .9rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .83rem; font-variant-numeric: tabular-nums }
th, td { padding: .22rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { font-weight: 600; vertical-align: bottom; background: var(--shade) } .l { text-align: left }
tbody tr:hover { background: var(--shade) } details { margin: .6rem 0 } summary { cursor: pointer }
.met { color: var(--good); font-weight: 600 } .missed { color: var(--bad); font-weight: 600 }
code { font-size: .9em; background: var(--shade); padding: .1em .3em; border-radius: 3px }
"""


def bytes_of(count: float | None) -> str:
    """A number of bytes with a unit, empty for None."""
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def number(value: float | None, places: int) -> str:
    """A number, empty for None."""
    return "" if value is None else f"{value:.{places}f}"


def percent(share: float | None) -> str:
    """A share as a percentage with enough digits, empty for None."""
    if share is None:
        return ""
    return f"{share:.1%}" if share >= 0.1 or not share else f"{share:.2%}" if share >= 0.001 else f"{share:.4%}"
