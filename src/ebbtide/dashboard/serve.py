"""The server: a socket on this machine, the application behind its guard, and the address to open."""

import ipaddress
import mimetypes
import secrets
import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import quote

from ebbtide.dashboard.places import Root
from ebbtide.errors import InputError, require

PORT = 8642
LOOPBACK = "127.0.0.1"
LEAST_TOKEN = 16
"""Least number of characters of a token that a user gives."""
MOST_REQUESTS = 100
"""Largest number of requests that are answered at a time; more are told to come again."""
GOODBYE_SECONDS = 1


class Place(NamedTuple):
    """Where the server listens, and the token that a request must bring (None: none)."""

    host: str
    port: int
    token: str | None

    def address(self, port: int) -> str:
        """The address to open in a browser."""
        shown = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{shown}]" if ":" in shown else shown
        return f"http://{host}:{port}/" + (f"?token={quote(self.token)}" if self.token else "")


def check_installed() -> None:
    """Raises `InputError` where the packages of the extra `dashboard` are missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    allowed = f"needs {' and '.join(missing)}: pip install 'ebbtide[dashboard]'"
    require(not missing, "command", "dashboard", allowed)


def place_of(host: str | None, port: int, token: str | None) -> Place:
    """The place that a user asked for. `token` is None where none was asked for, empty where one shall be made.

    Raises `InputError` for a port or token that cannot be used, and for another address than this machine's own
    without a token: whoever can reach it could read every run.
    """
    require(0 <= port <= 65535, "port", port, "must be from 0 (a free one) to 65535")
    host = host or LOOPBACK
    if token is not None:
        allowed = f"must have at least {LEAST_TOKEN} letters, digits, '-' or '_' (give no value to have one made)"
        sound = len(token) >= LEAST_TOKEN and token.replace("-", "").replace("_", "").isalnum() and token.isascii()
        require(token == "" or sound, "token", "..." if token else "", allowed)
        token = token or secrets.token_urlsafe(24)
    allowed = "others can reach this address: give --token too, or leave --host out and use ssh -L"
    require(is_loopback(host) or token is not None, "host", host, allowed)
    return Place(host, port, token)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(place: Place) -> socket.socket:
    """A socket that listens at a place. Raises `InputError` where the port is taken or the address is not ours."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError("host", place.host, "is no address of this machine") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(where)
        opened.listen(128)
    except OSError as error:
        opened.close()
        allowed = f"cannot be used ({error.strerror}); give another one, or 0 for a free one"
        raise InputError("port", place.port, allowed) from error
    return opened


def serve(root: Root, place: Place, say: Callable[[str], None]) -> None:
    """Answers requests about a root until Ctrl-C or SIGTERM; `say` gets the address once it listens."""
    import uvicorn

    from ebbtide.dashboard.app import make_app
    from ebbtide.dashboard.asking.routes import routes

    mimetypes.add_type("text/javascript", ".js")  # some systems have another type, which a browser refuses
    with listen(place) as opened:
        port = opened.getsockname()[1]
        names = [] if is_loopback(place.host) else [place.host, socket.gethostname(), socket.getfqdn()]
        app = make_app(root, port=port, token=place.token, names=names, more=routes(root))
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="auto",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_REQUESTS,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
        )
        say(place.address(port))
        uvicorn.Server(config).run(sockets=[opened])
