"""Hold the texts and the style sheet of the report page that are the same for every run."""

from __future__ import annotations

ABOUT = """
<p>Similar images are searched in two ways on the same encodings. <b>semcut</b> uses the class probabilities to skip
what cannot be relevant to a query, scans the rest by Hamming distance of codes, and orders a shortlist by exact
distance of features or by the fused score. <b>Other indexes</b>, of FAISS, usearch and rabitqlib, search all codes or
all features; three of them use the class probabilities too: a graph of features joined with the roots of probabilities,
with all roots and with projected ones, and lists by dominant class. Every method got the same encodings, and was built
and timed in the same process, in turn, with the same number of threads.</p>
"""

CONVENTIONS = """
<ul>
<li><b>Two truths, kept apart.</b> <i>Labels</i>: a result is right if it has the query's class. mAP@k divides by the
number of right records that k places can hold, mAP@all by all right records of the index, found or not, and P@k by k.
<i>Exact answers</i>: the nearest features (recall L2), or the best records by semcut's own equations, which are those
with a relevance above the cutoff, in order of distance or fused score (recall Eq. 2-4). An exhaustive search finds
them, and for some queries of each run they are compared with the equations evaluated over every record.</li>
<li><b>Recall counts ties</b>: a result that is at most as far as the k-th exact answer is right. A method that
disregards records on purpose cannot have full recall of the nearest features; a method that orders by features cannot
know which of them have the right class. So recall alone does not show which method is better; labels do.</li>
<li><b>Methods.</b> IndexBinary*: Hamming distance of codes, alone or with the exact re-rank by feature that semcut has
too, in C++ with the same number of threads. IndexFlatL2, IndexIVFFlat, IndexHNSWFlat, IndexIVFPQ with refinement:
Euclidean distance of features. One graph or one set of lists is built per kind, and it is searched with a grid of its
search parameters. IndexHNSWFlat joined: Euclidean distance of [feature, square roots of the probabilities], which are
joined as part of a search; <i>projected</i>: the roots are projected at random to 128 numbers first. Lists by argmax
class: the records whose dominant class is one of the query's 1 or 3 likeliest are compared exactly, by feature; one
query is a product in numpy, with numpy's own number of threads.
usearch: graphs of features as float16 or int8, and of codes, with the same re-rank. rabitqlib: features in quantised
form.</li>
<li><b>Time.</b> Rounds go over all methods in turn; the first round only warms up. Each group of calls follows a pause,
in which threads of the previous method stop, and 20 ms of queries that are not timed, since a processor is slow after
a pause. Queries/s is the size of the batch over the median time of a call. A latency is the time of one call with one
query, so p99 includes the effect of other work of the machine. Most of FAISS's indexes search one query on one thread.
If a batch would take too long, it is cut: the column <i>queries</i> is the number of queries whose results a row
describes.</li>
<li><b>Exact answers at low cutoffs</b> examine a large part of all records, so they are known for fewer queries.</li>
<li><b>Raw results</b>, ids and seconds of every call, are in <code>raw/</code> next to this page, and all figures in
<code>run.json</code>. Compare ratios within a run, not milliseconds between machines.</li>
</ul>
"""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --quiet: #666; --line: #ddd; --shade: #f6f6f4;
  --accent: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --ink: #e6e6e6; --quiet: #a0a0a0; --line: #3a3d42;
  --shade: #202327; --accent: #56b4e9 } }
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
code { font-size: .9em; background: var(--shade); padding: .1em .3em; border-radius: 3px }
"""
