"""Records that carry their own SHA-256: `{"body": ..., "sha256": ...}`, the hash of the body's compact JSON."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from ebbtide.errors import InputError
from ebbtide.runs.atomic import sha256

SCHEMA = 2
"""Version of the run folder format. Every version keeps the envelope and `body.schema`."""

DEEPEST = 20
"""Largest number of levels of nested lists and mappings in a record; our own have six."""
MOST_BITS = 64
"""Largest number of bits of a whole number in a record."""

T = TypeVar("T")
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""The exceptions that decoding JSON raises for arbitrary bytes."""


class DamagedError(Exception):
    """A file of a run folder that is missing, truncated or changed; the message says which and how."""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: msgspec.Raw
    sha256: str


class _Version(msgspec.Struct, frozen=True):
    schema: int


class _Versioned(msgspec.Struct, frozen=True):
    body: _Version


def sign(body: Any, *, indent: int = -1) -> bytes:
    """A record as bytes with its hash; `indent` spreads it over lines for human readers."""
    data = msgspec.json.encode(body)
    return msgspec.json.format(b'{"body":%s,"sha256":"%s"}' % (data, sha256(data).encode()), indent=indent)


def unsign(data: bytes, kind: type[T], where: str, name: str) -> T:
    """The body of a record of type `kind`; `where` and `name` are the folder and the file for messages.

    The hash is checked first, then the schema, then the fields. Raises `DamagedError` when the record is not intact,
    `InputError` when another version wrote it.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        text = msgspec.json.format(bytes(envelope.body), indent=-1)
        whole = sha256(text) == envelope.sha256
    except UNREADABLE as error:
        _check_schema(data, _Version, where, name)  # schema 1 had no envelope on run.json
        _check_schema(data, _Versioned, where, name)
        raise DamagedError(f"{name}: {_line(error)}") from error
    if not whole:
        raise DamagedError(f"{name}: content differs from its own SHA-256")
    _check_schema(text, _Version, where, name)
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as error:
        raise DamagedError(f"{name}: {_line(error)}") from error


def check_plain(data: Any, name: str) -> None:
    """Raises `DamagedError` for JSON that no record of ours contains: nesting deeper than `DEEPEST`, whole numbers
    beyond 64 bits, numbers that are not finite. `name` is the file."""
    level = [data]
    for _ in range(DEEPEST + 1):
        for value in level:
            if type(value) is int and value.bit_length() > MOST_BITS:
                raise DamagedError(f"{name}: holds a whole number of {value.bit_length()} bits")
            if type(value) is float and not math.isfinite(value):
                raise DamagedError(f"{name}: holds a number that is not finite")
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise DamagedError(f"{name}: is nested more than {DEEPEST} deep")


def _inside(data: Any) -> Iterable[Any]:
    return data.values() if isinstance(data, dict) else data if isinstance(data, list | tuple) else ()


def _check_schema(data: bytes, shape: type[_Version] | type[_Versioned], where: str, name: str) -> None:
    """Raises `InputError` when `data` names another schema version; does nothing when it names none."""
    try:
        found = msgspec.json.decode(data, type=shape)
    except UNREADABLE:
        return
    schema = found.body.schema if isinstance(found, _Versioned) else found.schema
    if schema > SCHEMA:
        raise InputError("run", where, f"{name} has schema {schema}; this version reads schema {SCHEMA}")
    if schema < SCHEMA:
        raise InputError("run", where, f"{name} has schema {schema}: made by an earlier ebbtide; train the run anew")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
