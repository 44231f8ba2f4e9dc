"""A page that shows an index, and the HTTP API that the page and other programs use.

In reading order:

    http_api.py         the addresses of the API and of the page
    connection_guard.py runs the HTTP server, and closes connections that send no complete request
    token_guard.py      checks the token of a request
    request_bodies.py   reads the bodies of requests, within one limit of memory
    request_guard.py    checks everything else about a request: host name, number, duration; calls the other two guards
    work_queue.py       runs each kind of work in threads of its own, and refuses what is too much
    health_check.py     finds out whether the index can be read, without waiting behind other work
    error_responses.py  turns every error into a JSON sentence
    schemas.py          the JSON of requests and responses
    service.py          answers each kind of request
    index_state.py      reads an index so that each response describes one version of it
    descriptions.py     builds the JSON that describes records, search results and partitions
    image_queries.py    decodes and encodes an image that was sent as a query
    picture_decoding.py decodes images in bounded memory
    exhaustive.py       compares a query with every record, to check a search
    thumbnails.py       makes small pictures of records
    open_index.py       opens an index together with the network that made it, for `semcut explore`
    followed_index.py   serves the index that is in a directory, even after it was replaced
    page/               HTML, CSS and JavaScript, served unchanged

`semcut explore` (connector/cli/explore_command.py) starts the server: `open_index`, then `FollowedIndex`, then
`create_app` and `create_server`. Requests run in worker threads, each on the latest version of the index. Importing
these modules does not load torch: torch and the network are loaded when the first image is sent. The page loads no
files from other servers. Paths and JSON fields are public: programs depend on them.
"""

from semcut.indexes.errors import require as _require

_require(
    {"fastapi": "fastapi", "fastapi_offline": "fastapi-offline", "uvicorn": "uvicorn", "PIL": "pillow"},
    "serve a page",
    "explore",
)
