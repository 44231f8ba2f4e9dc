"""The addresses of the API, and of the page."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from semcut.connector.explore.schemas import (
    MAX_UPLOAD,
    Answer,
    Asked,
    Health,
    Members,
    Partitions,
    Problem,
    Record,
    RecordNumber,
    Sample,
    Stats,
)
from semcut.connector.explore.service import ExploreService
from semcut.connector.explore.token_guard import Guard, problem
from semcut.indexes import InvalidEncodingsError, InvalidParameterError, SemcutError, UnknownIdError
from semcut.indexes.errors import DataError, shown

PAGE = Path(__file__).parent / "page"
SECONDS = 30.0

_BODY = MAX_UPLOAD * 4 // 3 + (1 << 16)  # an image in base64, and the rest
_FILES = {"explore.css": "text/css", "explore.js": "text/javascript"}
_T = TypeVar("_T")


def create_app(
    served: ExploreService, *, token: str | None = None, hosts: Iterable[str] = ("localhost",), seconds: float = SECONDS
) -> Guard:
    """The application, guarded.

    Args:
        served: the index.
        token: what must be shown by whoever asks; None for nothing.
        hosts: names that the server is known by, beside addresses.
        seconds: that a request may take.
    """
    app: FastAPI = FastAPIOffline(
        title="semcut",
        description='Search an index of images. Errors are `{"error": "a sentence"}`.',
        responses={status: {"model": Problem} for status in (400, 401, 403, 413, 415, 422, 503)},
    )
    # A thread that nobody waits for any more keeps its place, so that there are never more of them.
    searching, comparing = ThreadPoolExecutor(2 * (os.cpu_count() or 1)), ThreadPoolExecutor(1)

    async def run(call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(searching, call)

    _errors(app)
    not_found: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}

    @app.get("/health")
    async def health() -> Health:
        """Whether the server is up, and the index can be read."""
        await run(served.version)
        return Health()

    @app.get("/stats")
    async def stats() -> Stats:
        """The size of the index, names of classes, and what can be asked."""
        return await run(served.stats)

    @app.post("/search", responses=not_found)
    async def search(asked: Asked, request: Request) -> Answer:
        """The best records for a record or an image."""
        if not asked.compare:
            return await run(partial(served.search, asked))
        stop = threading.Event()
        found = asyncio.get_running_loop().run_in_executor(comparing, partial(served.search, asked, stop.is_set))
        try:
            # Who moves a slider asks often, and waits for the last answer alone.
            while not (await asyncio.wait({found}, timeout=0.1))[0]:
                if await request.is_disconnected():
                    raise HTTPException(400, "nobody waits for this answer")
            return await found
        finally:
            stop.set()
            found.cancel()

    @app.get("/records")
    async def sample(
        count: Annotated[int, Query(ge=1, le=200)] = 24, seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
    ) -> Sample:
        """Some records, drawn at random."""
        return await run(partial(served.sample, count, seed))

    @app.get("/records/{record}", responses=not_found)
    async def record(record: Annotated[RecordNumber, InPath()]) -> Record:
        """A record."""
        return await run(partial(served.record, record))

    @app.get(
        "/records/{record}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}, **not_found},
    )
    async def picture(
        record: Annotated[RecordNumber, InPath()], size: Annotated[int, Query(ge=16, le=512)] = 160
    ) -> Response:
        """A small picture of a record; a grey one where its file is missing or is no image."""
        found = await run(partial(served.thumbnail, record, size))
        kept = "no-store" if found.missing else "private, max-age=60"
        return Response(found.content, media_type=found.media_type, headers={"cache-control": kept})

    @app.get("/partitions")
    async def partitions(
        offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        samples: Annotated[int, Query(ge=0, le=64)] = 8,
    ) -> Partitions:
        """Partitions with records, the largest first, with some of their records."""
        return await run(partial(served.partitions, offset, limit, samples))

    @app.get("/partitions/{partition}", responses=not_found)
    async def members(
        partition: Annotated[int, InPath(ge=0, le=10_000)],
        limit: Annotated[int, Query(ge=1, le=200)] = 48,
        ambiguous: Annotated[bool, Query(description="The least sure records first, instead of any.")] = False,
    ) -> Members:
        """Records of a partition."""
        if partition >= served.classes:
            raise HTTPException(404, f"there is no partition {partition}: there are {served.classes}, from 0 on")
        return await run(partial(served.members, partition, limit, ambiguous))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> FileResponse:
        if name not in _FILES:
            raise HTTPException(404, "there is no such file")
        return FileResponse(PAGE / name, media_type=_FILES[name])

    return Guard(app, hosts=hosts, token=token, max_body=_BODY, seconds=seconds)


def _errors(app: FastAPI) -> None:
    """Every error is a sentence in JSON, and none shows what is inside."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        parts = []
        for item in error.errors()[:3]:
            where = ".".join(str(part) for part in item["loc"][1:])[:100]
            reason = re.sub(r"^Value error, ", "", item["msg"])
            plain = not where or item["type"] == "json_invalid"
            parts.append(reason if plain else f"{where}: {reason}, got {shown(item['input'])}")
        return problem(422, "; ".join(parts))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(SemcutError)
    async def failed(request: Request, error: SemcutError) -> JSONResponse:
        if isinstance(error, UnknownIdError):
            return problem(404, str(error))
        theirs = isinstance(error, DataError | InvalidEncodingsError | InvalidParameterError)
        return problem(400 if theirs else 503, str(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "something went wrong in the server: its log says what")
