"""Identity of computations: canonical JSON, digests of specs, and addresses of members."""

import hashlib
import math
from types import NoneType
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.traced import default, default_at, fields_of, replace_at, value_at
from ebbtide.training.custom import as_data
from ebbtide.training.fields import explain

DEEPEST = 10
"""Largest number of levels of nested structs, lists and mappings; a spec has five."""
ATOMS = frozenset({bool, int, NoneType})

S = TypeVar("S", bound=msgspec.Struct)


def typed(spec: S) -> S:
    """The spec with every number in the type of its field, and a user's objects as data. Python callers can put
    anything into a field; files are checked while they are read."""
    spec = as_data(spec)
    check_json(spec)
    data = msgspec.to_builtins(spec)
    try:
        return msgspec.convert(data, type(spec))
    except msgspec.ValidationError as error:
        raise explain(error, data, type(spec)) from error


def canonical_json(spec: msgspec.Struct) -> bytes:
    """JSON with sorted keys and every field, numbers in the type of their field."""
    return msgspec.json.encode(typed(spec), order="sorted")


def digest(spec: msgspec.Struct) -> str:
    """The SHA-256 of the canonical JSON of all fields that differ from their defaults."""
    return hashlib.sha256(msgspec.json.encode(without_defaults(typed(spec)), order="sorted")).hexdigest()


def addresses(spec: Any, names: list[str]) -> list[str]:
    """The address of every member of a run: the SHA-256 of all fields that differ from their defaults, with the fields
    in `names`, which may differ between members, stored by name."""
    spec = typed(spec)
    at = dict(zip(names, (value_at(spec, name) for name in names), strict=True))
    plain = dict(zip(names, (default_at(spec, name) for name in names), strict=True))
    common = replace(spec, members=1, vary={})
    for name in names:
        common = replace_at(common, name, plain[name])
    stem = hashlib.sha256(msgspec.json.encode(without_defaults(common), order="sorted"))
    found = []
    for m in range(spec.members):
        own = at | {"seeds.member": at["seeds.member"] + m} | {name: values[m] for name, values in spec.vary.items()}
        differs = {name: float(value) for name, value in own.items() if value != plain[name]}
        one = stem.copy()
        one.update(msgspec.json.encode(differs, order="sorted"))
        found.append(one.hexdigest())
    return found


def without_defaults(value: Any) -> Any:
    """`value` in builtins, without struct fields that equal their defaults."""
    match value:
        case msgspec.Struct():
            tag = type(value).__struct_config__.tag
            own = ((one.name, getattr(value, one.name), default(one)) for one in fields_of(type(value)))
            lean = {name: without_defaults(item) for name, item, plain in own if item != plain}
            return lean if tag is None else {"type": tag} | lean
        case dict():
            return {name: without_defaults(item) for name, item in value.items()}
        case list() | tuple():
            return [without_defaults(item) for item in value]
    return value


def check_json(data: Any) -> None:
    """Raises `InputError` for data that JSON cannot hold, so that every spec can be read back: NaN or infinity, NumPy
    scalars (whose digits may differ from the intended number), text that is not Unicode, endless nesting."""
    if not _is_json(data, 0):
        _explain(data)


def _is_json(data: Any, depth: int) -> bool:
    """Whether JSON can hold the data. Builds no text, because every spec of a sweep is checked several times."""
    kind = type(data)
    if depth > DEEPEST:
        return False
    if kind is str:
        return _is_unicode(data)
    if kind is float:
        return math.isfinite(data)
    if kind in ATOMS:
        return True
    if isinstance(data, msgspec.Struct):
        inner: Any = [one for name in data.__struct_fields__ if (one := getattr(data, name)) is not msgspec.UNSET]
    elif isinstance(data, dict):
        inner = data.values()
        if not all(type(key) is str and _is_unicode(key) for key in data):
            return False
    elif isinstance(data, list | tuple):
        inner = data
    else:
        return False
    return all([_is_json(one, depth + 1) for one in inner])


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _explain(data: Any, name: str = "spec", depth: int = 0) -> None:
    """Raises the `InputError` that names the first field whose value JSON cannot hold."""
    require(depth <= DEEPEST, name, data, f"must not be nested more than {DEEPEST} deep")
    match data:
        case msgspec.Struct():
            every = ((field, getattr(data, field)) for field in data.__struct_fields__)
            items = [(field, one) for field, one in every if one is not msgspec.UNSET]
        case dict():
            items = list(data.items())
            for key in data:
                require(type(key) is str, name, key, "names must be text")
                _explain_scalar(key, name)
        case list() | tuple():
            items = list(enumerate(data))
        case _:
            return _explain_scalar(data, name)
    for key, value in items:
        _explain(value, f"{key}" if depth == 0 else f"{name}.{key}", depth + 1)


def _explain_scalar(value: Any, name: str) -> None:
    kind = type(value)
    what = f"{kind.__module__}.{kind.__name__}"
    allowed = f"must be a plain Python number, text or list, not {what}; convert it (e.g. with .item() or list())"
    require(kind in ATOMS or kind in (float, str), name, value, allowed)
    if isinstance(value, float):
        require(math.isfinite(value), name, value, "must be a finite number")
    if isinstance(value, str):
        require(_is_unicode(value), name, value, "must be Unicode text")
