"""Checks the token of every request to the HTTP API.

A program sends the token as `Authorization: Bearer TOKEN`. A browser opens `/?token=TOKEN` once: the guard answers with
a cookie, which holds a hash of the token, and redirects to the page. Tokens are compared in constant time, so the
duration of a response reveals nothing about the token.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from semcut.connector.explore.error_responses import error_response
from semcut.indexes.errors import InvalidParameterError

_PATHS_WITHOUT_TOKEN = ("/health",)


class TokenGuard:
    """Lets a request pass only if it has the token.

    Args:
        token: the secret; None lets every request pass.

    Raises:
        InvalidParameterError: the token cannot be sent in a header, as an empty one, which every request would have.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
            raise InvalidParameterError("token = (hidden), expected printable ASCII characters, or None")
        self._token = token
        # Browsers send a cookie to all ports of a host, so the name of the cookie depends on the token, too.
        self._cookie_value = hashlib.sha256(f"semcut {token}".encode()).hexdigest()
        self._cookie_name = f"semcut_{self._cookie_value[:8]}"

    @staticmethod
    def is_open(scope: Scope) -> bool:
        """Return whether a request needs no token on any server: it asks whether the server runs."""
        return scope["path"] in _PATHS_WITHOUT_TOKEN and scope["method"] in ("GET", "HEAD")

    def check(self, scope: Scope, headers: Headers) -> Response | None:
        """Check the token of a request.

        Returns:
            None if the request may pass, else the response to send: an error, or a redirect that sets the cookie.
        """
        if self._token is None or self.is_open(scope):
            return None
        if scope["path"] == "/":
            in_address = parse_qs(scope["query_string"].decode("latin-1")).get("token")
            if in_address:
                return self._exchange_for_cookie(in_address[0], self._token)
        if self._has_bearer_token(headers, self._token) or self._has_cookie(headers):
            return None
        return error_response(
            401, "this server requires a token: send it as Authorization: Bearer TOKEN, or open /?token=TOKEN"
        )

    def _exchange_for_cookie(self, given: str, token: str) -> Response:
        if not _equal(given, token):
            return error_response(401, "this is not the token of this server")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie_name, self._cookie_value, httponly=True, samesite="strict")
        return answer

    def _has_bearer_token(self, headers: Headers, token: str) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _equal(given.strip(), token)

    def _has_cookie(self, headers: Headers) -> bool:
        # Split by hand: a cookie parser would stop at a malformed cookie of another server on this machine.
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        return _equal(cookies.get(self._cookie_name, ""), self._cookie_value)


def _equal(given: str, expected: str) -> bool:
    """Compare two texts in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))
