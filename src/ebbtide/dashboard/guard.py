"""The guard before every request: who may ask, and what a browser may do with the answer.

A page of another site can make a browser ask this server, and by DNS rebinding even under a name of its own. So a
request must name this machine (`Host`), must not come from another origin (`Origin`, `Sec-Fetch-Site`), may only read
(GET, HEAD), and where a token is set must bring it: once in the address (it then moves to a cookie), or as a bearer.
"""

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import msgspec

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The policy of the page: nothing but its own files, never inside another page."""
REPORT = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups"
)
"""The policy of a report: no script, nothing from anywhere, and only inside this server's page."""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
}
Refusal = tuple[int, str, list[tuple[bytes, bytes]]]
LOCAL = ("localhost", "127.0.0.1", "::1")
HOST = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?")


class Guard:
    """An ASGI application that passes on what may be answered, and adds the headers of safety to each answer.

    `names` are the names of this machine beside the local ones; with a token any address in digits may be used too,
    since rebinding needs a name.
    """

    def __init__(self, app: App, *, port: int, token: str | None = None, names: Iterable[str] = ()):
        self.app, self.token = app, token
        self.names = {*LOCAL, *(name.lower() for name in names)}
        self.cookie = f"ebbtide-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(scope, send)
        headers = _headers(scope)
        refused = self._refusal(scope, headers)
        if refused:
            await _refuse(send, *refused)
        elif self.token and self._in_address(scope):
            await self._move_token(scope, send)
        elif self.token and not self._knows(headers):
            words = "needs the token: open the address that `ebbtide dashboard` printed"
            await _refuse(send, 401, words, [(b"www-authenticate", b"Bearer")])
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, list[str]]) -> Refusal | None:
        """Status, words and headers of the refusal of a request; None for one that may be answered."""
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only GET and HEAD: the dashboard changes nothing", [(b"allow", b"GET, HEAD")]
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 421, "the Host header names another machine", []
        if any(origin != f"{scope.get('scheme', 'http')}://{hosts[0]}" for origin in headers.get("origin", [])):
            return 403, "the request comes from another origin", []
        opened = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") == ["document"]
        site = headers.get("sec-fetch-site", ["none"])
        if site not in (["same-origin"], ["none"]) and not (opened and scope["path"] == "/"):
            return 403, "the request comes from another site", []
        return None

    def _is_ours(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if found is None or int(found[3] or 80) > 65535:
            return False
        name = (found[1] or found[2]).lower()
        return name in self.names or (self.token is not None and _is_address(name))

    def _in_address(self, scope: Scope) -> bool:
        return any(self._is_token(one) for one in _query(scope).get("token", []))

    def _knows(self, headers: dict[str, list[str]]) -> bool:
        given = [text.removeprefix("Bearer ") for text in headers.get("authorization", []) if text[:7] == "Bearer "]
        for line in headers.get("cookie", []):
            pairs = (part.strip().partition("=") for part in line.split(";"))
            given += [value for name, _, value in pairs if name == self.cookie]
        return any(self._is_token(one) for one in given)

    def _is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    async def _move_token(self, scope: Scope, send: Send) -> None:
        """Moves the token from the address, where it would be seen and kept, to a cookie."""
        rest = [(key, value) for key, values in _query(scope).items() for value in values if key != "token"]
        where = quote(scope["path"] if not scope["path"].startswith("//") else "/")
        where += f"?{urlencode(rest)}" if rest else ""
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", where.encode()), (b"set-cookie", cookie.encode())]
        await _refuse(send, 303, "moved", [*headers, (b"cache-control", b"no-store")])


def _with_headers(scope: Scope, send: Send) -> Send:
    """`send` that adds the headers of safety."""

    async def safe(message: Message) -> None:
        if message["type"] == "http.response.start":
            policy = REPORT if scope["path"] == "/report" and message["status"] == 200 else PAGE
            own = {**HEADERS, b"content-security-policy": policy.encode()}
            given = [(key, value) for key, value in message.get("headers", []) if key.lower() not in own]
            if not any(key.lower() == b"cache-control" for key, _ in given):
                given.append((b"cache-control", b"private, no-cache"))
            message = {**message, "headers": [*given, *own.items()]}
        await send(message)

    return safe


async def _refuse(send: Send, status: int, words: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = msgspec.json.encode({"error": words})
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in scope["headers"]:
        found.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, max_num_fields=200)
    except ValueError:  # more than 200 fields
        return {}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
