"""A page to look at an index, and the HTTP API under it, which other programs can use.

    schemas.py      what goes over the wire
    served.py       an index, its network if there is one, and everything that is asked of them
    brute_force.py  a query compared with every record, to be put beside a search
    thumbnails.py   small pictures of records
    guard.py        what keeps strangers and overload out: hosts, token, sizes, time
    app.py          the addresses
    cli.py          `semcut explore`
    page/           HTML, CSS and JavaScript, used as they are

Requests run one by one in worker threads, and see the index as of its last change: a reader moves on when the writer
has committed. The page comes with the package and asks this server alone.
"""

from semcut.indexes.errors import require as _require

_require({"fastapi": "fastapi", "fastapi_offline": "fastapi-offline", "uvicorn": "uvicorn"}, "serve a page", "explore")
