"""The paths of the HTTP API and of the page, and the application that serves them.

Every handler calls one method of `ExploreService` in a worker thread of the queue for its kind of work: see `_Work`.
Users read docstrings and descriptions of this module at /docs.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from semcut.connector.explore.error_responses import install_error_handlers
from semcut.connector.explore.health_check import HealthCheck
from semcut.connector.explore.request_bodies import SMALL_BODY
from semcut.connector.explore.request_guard import RequestGuard
from semcut.connector.explore.schemas import (
    MAX_UPLOAD,
    ErrorMessage,
    Health,
    IndexSummary,
    Key,
    PartitionList,
    PartitionMembers,
    RandomRecords,
    Record,
    RecordNumber,
    SearchRequest,
    SearchResponse,
)
from semcut.connector.explore.service import ExploreService, ServiceSource
from semcut.connector.explore.work_queue import WorkQueue

PAGE = Path(__file__).parent / "page"
REQUEST_SECONDS = 30.0

_MAX_BODY = MAX_UPLOAD * 4 // 3 + (1 << 16)  # bytes: the largest image in base64, and the other fields
_PAGE_FILES = {"explore.css": "text/css", "explore.js": "text/javascript"}
_DISCONNECT_POLL = 0.1  # seconds between checks whether the client of a comparison is still connected
_SEARCH_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SearchRequest.model_json_schema()}}}
}
_Size = Annotated[int, Query(ge=16, le=512)]
_T = TypeVar("_T")


class _Work:
    """The kinds of work, each with threads of its own, so that no kind waits behind another.

    Their queues together hold fewer than `request_guard.MOST_RUNNING` calls. Images are read and encoded one after the
    other, because each can take a gigabyte and the encoding uses all cores. A filter that is new is evaluated for all
    records, and the codes of those that match are copied, so few searches with a filter run at once.
    """

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        self.requests = WorkQueue("searches and lists", threads=2 * cores, waiting=100)
        self.filtered = WorkQueue("searches with a filter", threads=2, waiting=16)
        self.comparisons = WorkQueue("comparisons", threads=1, waiting=16)
        self.images = WorkQueue("images", threads=1, waiting=16)
        self.pictures = WorkQueue("pictures", threads=2, waiting=100)


def create_app(
    source: ServiceSource,
    *,
    token: str | None = None,
    hosts: Iterable[str] = ("localhost",),
    seconds: float = REQUEST_SECONDS,
) -> RequestGuard:
    """Create the ASGI application that serves the API and the page.

    Args:
        source: gives the service that answers a request.
        token: secret that every request must send; None if no token is required. See `TokenGuard`.
        hosts: names of the server; IP addresses are always accepted.
        seconds: maximum duration of a request.
    """
    app: FastAPI = FastAPIOffline(
        title="semcut",
        description='Search an index of images. Errors are `{"error": "a sentence"}`.',
        responses={status: {"model": ErrorMessage} for status in (400, 401, 403, 411, 413, 415, 422, 503)},
    )
    work, check = _Work(), HealthCheck(partial(source.use, lambda service: service.version()))

    async def run(call: Callable[[ExploreService], _T], queue: WorkQueue = work.requests) -> _T:
        return await queue.submit(partial(source.use, call))

    async def compare(wanted: SearchRequest, request: Request) -> SearchResponse:
        """Search and compare with every record; stop when the client disconnects.

        A user who moves a slider sends many requests, and waits only for the last response.
        """
        stop = threading.Event()
        found = work.comparisons.submit(partial(source.use, lambda service: service.search(wanted, stop.is_set)))
        try:
            while not (await asyncio.wait({found}, timeout=_DISCONNECT_POLL))[0]:
                if await request.is_disconnected():
                    raise HTTPException(400, "the client has disconnected")
            return await found
        finally:
            stop.set()
            found.cancel()

    async def picture(record: int | str, size: int) -> Response:
        found = await run(lambda service: service.thumbnail(record, size), work.pictures)
        caching = "no-store" if found.missing else "private, max-age=60"
        return Response(found.content, media_type=found.media_type, headers={"cache-control": caching})

    install_error_handlers(app)
    not_found: dict[int | str, dict[str, Any]] = {404: {"model": ErrorMessage}}
    pictures = {200: {"content": {"image/jpeg": {}, "image/png": {}}}, **not_found}

    @app.get("/health")
    async def health() -> Health:
        """Report that the server runs and can read the index."""
        await check.wait()
        return Health()

    @app.get("/stats")
    async def stats() -> IndexSummary:
        """Return the size of the index, the names of its classes, and which requests it can answer."""
        return await run(lambda service: service.stats())

    @app.post("/search", responses=not_found, openapi_extra=_SEARCH_BODY)
    async def search(request: Request) -> SearchResponse:
        """Find the records that are most similar to a record or to an image."""
        body = await request.body()
        parse = partial(_parse_search, body)
        wanted = parse() if len(body) <= SMALL_BODY else await work.images.submit(parse)
        image = wanted.image
        if image is not None:
            await run(lambda service: service.encode(image), work.images)
        if wanted.compare:
            return await compare(wanted, request)
        return await run(
            lambda service: service.search(wanted), work.requests if wanted.where is None else work.filtered
        )

    @app.get("/records")
    async def sample(
        count: Annotated[int, Query(ge=1, le=200)] = 24, seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
    ) -> RandomRecords:
        """Return records chosen at random."""
        return await run(lambda service: service.sample(count, seed))

    @app.get("/records/{record}", responses=not_found)
    async def record(record: Annotated[RecordNumber, PathParameter()]) -> Record:
        """Return a record."""
        return await run(lambda service: service.record(record))

    @app.get("/records/{record}/thumbnail", response_class=Response, responses=pictures)
    async def thumbnail(record: Annotated[RecordNumber, PathParameter()], size: _Size = 160) -> Response:
        """Return a small picture of a record: a grey placeholder if its file is missing or is not an image."""
        return await picture(record, size)

    @app.get("/record", responses=not_found)
    async def record_with_key(key: Annotated[Key, Query()]) -> Record:
        """Return a record of an index whose ids are strings."""
        return await run(lambda service: service.record(key))

    @app.get("/record/thumbnail", response_class=Response, responses=pictures)
    async def thumbnail_with_key(key: Annotated[Key, Query()], size: _Size = 160) -> Response:
        """Return a small picture of a record of an index whose ids are strings."""
        return await picture(key, size)

    @app.get("/partitions")
    async def partitions(
        offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        samples: Annotated[int, Query(ge=0, le=64)] = 8,
    ) -> PartitionList:
        """Return the partitions that hold records, largest first, with some records of each."""
        return await run(lambda service: service.partitions(offset, limit, samples))

    @app.get("/partitions/{partition}", responses=not_found)
    async def members(
        partition: Annotated[int, PathParameter(ge=0, le=10_000)],
        limit: Annotated[int, Query(ge=1, le=200)] = 48,
        ambiguous: Annotated[
            bool, Query(description="Return the records whose class is least certain, those first.")
        ] = False,
    ) -> PartitionMembers:
        """Return records of a partition."""

        def read(service: ExploreService) -> PartitionMembers:
            if partition >= service.classes:
                raise HTTPException(404, f"there is no partition {partition}: they are 0 to {service.classes - 1}")
            return service.members(partition, limit, ambiguous)

        return await run(read)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> FileResponse:
        if name not in _PAGE_FILES:
            raise HTTPException(404, "there is no such file")
        return FileResponse(PAGE / name, media_type=_PAGE_FILES[name])

    return RequestGuard(app, hosts=hosts, token=token, max_body=_MAX_BODY, seconds=seconds)


def _parse_search(body: bytes) -> SearchRequest:
    """Parse the body of a search.

    Raises:
        RequestValidationError: it is not JSON, or not a search.
    """
    try:
        return SearchRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None
