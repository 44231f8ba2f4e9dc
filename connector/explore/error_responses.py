"""Turns every error of the HTTP API into JSON of the form `{"error": "a sentence"}`.

A sentence says what was given and what was expected. It never reveals the internals of the server.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from semcut.connector.explore.work_queue import BusyError
from semcut.indexes import InvalidEncodingsError, InvalidParameterError, SemcutError, UnknownIdError
from semcut.indexes.config import plain_reason
from semcut.indexes.errors import DataError, shown

_CALLER_ERRORS = (DataError, InvalidEncodingsError, InvalidParameterError)
_FIELDS_NAMED = 3


def error_response(status: int, reason: str) -> JSONResponse:
    """Create the response to a request that failed."""
    return JSONResponse({"error": reason}, status)


def busy_response(reason: str) -> JSONResponse:
    """Create the response to a request for which there is no room now: the client may send it again."""
    answer = error_response(503, reason)
    answer.headers["retry-after"] = "1"
    return answer


def install_error_handlers(app: FastAPI) -> None:
    """Make an application answer every exception with a JSON sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(422, _validation_message(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        answer = error_response(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(SemcutError)
    async def semcut_error(request: Request, error: SemcutError) -> JSONResponse:
        if isinstance(error, UnknownIdError):
            return error_response(404, str(error))
        return error_response(400 if isinstance(error, _CALLER_ERRORS) else 503, str(error))

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> JSONResponse:
        return busy_response(str(error))

    @app.exception_handler(Exception)
    async def unexpected_error(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "the server failed: its log gives the reason")


def _validation_message(error: RequestValidationError) -> str:
    """Name the first few fields that are wrong, with reason and value."""
    parts = []
    for item in error.errors()[:_FIELDS_NAMED]:
        field = ".".join(str(part) for part in item["loc"][1:])[:100]
        reason = plain_reason(item["msg"])
        concerns_whole_body = not field or item["type"] == "json_invalid"
        parts.append(reason if concerns_whole_body else f"{field}: {reason}, got {shown(item['input'])}")
    return "; ".join(parts)
