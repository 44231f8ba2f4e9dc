"""Ground truth of collections in which the same thing is to be found: right answers that are known query by query.

In reading order:

    judged_queries    the one type that every form is read as: queries with an optional box, relevant images, junk
    oxford_files      oxford5k, paris6k: text files for each query, with a box
    revisited_json    roxford5k, rparis6k: one JSON file, easy, medium and hard
    name_groups       holidays, ukbench: groups by the names of the images
    truth_tables      csv: a table with the columns query, relevant and junk
    read_truth        read any form by its name
    judged_records    find the records of an index that a ground truth names

`semcut.connector.evaluation.judged_search` measures a search by them. All input may come from someone else: files are
regular files of bounded size, and what they name is only looked up among the images of the set, never opened.
"""

from typing import Literal

TruthForm = Literal["oxford5k", "paris6k", "roxford5k", "rparis6k", "holidays", "ukbench", "csv"]
"""Names of the forms of ground truth; `read_truth` reads them."""

NAMED_BY_IMAGES: tuple[TruthForm, ...] = ("holidays", "ukbench")
"""The forms whose ground truth are the names of the images, so that there is nothing else to read."""
