"""Fields of a struct by dotted name: assignment from text, and one-line explanations of invalid values.

`kind` is the type of the struct, such as `Spec`; `data` is such a struct in builtins.
"""

import copy
import re
import types
import typing
from collections.abc import Collection, Iterable
from pathlib import PurePath
from typing import Any

import msgspec

from ebbtide.errors import InputError, nearest
from ebbtide.traced import default
from ebbtide.training.common_names import field_called, number_in
from ebbtide.training.custom import KINDS, in_loaded_file
from ebbtide.user_code import names_a_file

PARTS = tuple(one.part for one in KINDS)
"""Fields that a class in a user's file can be."""


def override(kind: type, data: dict[str, Any], name: str, text: str) -> None:
    """Sets the field at dotted `name` to a value written as text: JSON where it parses as JSON, a number as people
    write it (`2.56M`, `1_280_000`), else a string. Otherwise like `assign`."""
    number = number_in(text)
    assign(kind, data, name, parse(text) if number is None else number)


def override_all(kind: type, data: dict[str, Any], fields: Iterable[tuple[str, str]]) -> None:
    """Sets every field to its text (`override`): a struct before its own fields, in whatever order they are given; of
    two texts for one field the last one holds."""
    for name, text in sorted(fields, key=_depth):
        override(kind, data, name, text)


def _depth(field: tuple[str, Any]) -> int:
    """The number of structs around the field of a (dotted name, value)."""
    return field[0].count(".")


def assign(kind: type, data: dict[str, Any], name: str, value: Any) -> None:
    """Sets the field at dotted `name`. A whole number written as a float may fill an integer field.

    Where a field holds one of several structs (`source`, `task.labels`, `model.positions`, `optimizer` ...) the value
    may be the struct's name, which brings its defaults; `source` also takes the path of a `.npz` or `.safetensors`
    file, and `task`, `source` and `model` a class in a Python file that was loaded (`./mine.py:Ring`). Setting a field
    of an absent struct (`stopping.patience`) creates that struct. Raises `InputError` for a field that does not exist.
    """
    value = int(value) if isinstance(value, float) and value.is_integer() else value  # 1e6 sequences
    *parents, last = name.split(".")
    at: Any = data
    own = False  # whether the field is of a class in a user's file
    for i, part in enumerate(parents):
        _known(at, part, ".".join(parents[:i]), value, _unset(kind, data, parents[:i]))
        if at.get(part) is None:
            at[part] = _optional(kind, data, parents[: i + 1])
        at[part] = copy.copy(at[part])  # whoever gave this struct, or another spec, may hold it too
        struct = at[part]
        at = _holder(struct)
        own |= at is not struct
    _known(at, last, ".".join(parents), value, () if own else _unset(kind, data, parents))
    current = at.get(last)
    if isinstance(current, dict) and "type" in current and isinstance(value, str):
        if name == "source" and PurePath(value).suffix in (".npz", ".safetensors"):
            value = _defaults(kind, data, [*parents, last], "features", path=value)
        elif isinstance(found := in_full(name, value), dict):
            value = found
        elif value == current.get("type"):
            value = current
        elif value not in _words(_walk(kind, data, [*parents, last], union=True)[0]):
            value = _defaults(kind, data, [*parents, last], value)
    elif isinstance(current, str) and isinstance(value, str):  # a word, where there may be a struct
        tagged = value in _tags(_walk(kind, data, [*parents, last], union=True)[0])
        value = _defaults(kind, data, [*parents, last], value) if tagged else value
    if own and type(current) is float and type(value) is int:
        value = float(value)  # as its class has it, also where the file was not loaded
    at[last] = value


def _holder(at: Any) -> Any:
    """The dict that has the fields of a struct in builtins: a part of its own where the struct is in a user's file."""
    if isinstance(at, dict) and at.get("type") == "custom" and isinstance(at.get("fields"), dict):
        at["fields"] = at["fields"].copy()
        return at["fields"]
    return at


def assign_all(kind: type, data: dict[str, Any], values: dict[str, Any]) -> None:
    """Assigns every value; a struct before its own fields, in whatever order they are given."""
    for name, value in sorted(values.items(), key=_depth):
        assign(kind, data, name, value)


def value_in(data: dict[str, Any], name: str) -> Any:
    """The value of the field at dotted `name` of a spec in builtins; None where there is no such field."""
    at: Any = data
    for part in name.split("."):
        at = _holder(at)
        at = at.get(part) if isinstance(at, dict) else None
    return at


def _defaults(kind: type, data: dict[str, Any], path: list[str], tag: str, /, **given: Any) -> dict[str, Any]:
    """The struct tagged `tag` of the union at `path` with its defaults, so that later overrides find its fields; only
    the given values where it needs more (conversion will explain). Raises `InputError` where there is no such one."""
    union = _walk(kind, data, path, union=True)[0]
    for option in _options(union):
        if option not in KINDS and hasattr(option, "__struct_config__") and option.__struct_config__.tag == tag:
            try:
                return msgspec.to_builtins(option(**given))
            except TypeError:
                return {"type": tag, **given}
    known = [*_words(union), *_tags(union)]
    raise InputError(".".join(path), tag, f"must be one of {', '.join(known)}{nearest(tag, known)}")


def _optional(kind: type, data: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    """The fields of the optional struct at `path` where it is absent: its defaults, None where a value is required."""
    for option in _options(_walk(kind, data, path, union=True)[0]):
        if hasattr(option, "__struct_fields__"):
            found = {one.name: default(one) for one in msgspec.structs.fields(option)}
            found = {n: value for n, value in found.items() if value is not msgspec.UNSET}
            return {n: None if value is msgspec.NODEFAULT else msgspec.to_builtins(value) for n, value in found.items()}
    return None


def _unset(kind: type, data: dict[str, Any], path: list[str]) -> list[str]:
    """The fields of the struct at `path` that are absent where they are not set."""
    found = _walk(kind, data, path)[0]
    fields = msgspec.structs.fields(found) if hasattr(found, "__struct_fields__") else ()
    return [one.name for one in fields if one.default is msgspec.UNSET]


def _known(at: Any, part: str, parent: str, value: Any, unset: Collection[str]) -> None:
    fields = [*at, *(one for one in unset if one not in at)] if isinstance(at, dict) else []
    if part not in fields:
        place = f"{parent} has the fields" if parent else "a spec has the fields"
        shown = ", ".join(f for f in fields if f != "type") or "none"
        hint = "" if parent else field_called(part)
        hint = hint or nearest(part, fields)
        raise InputError(f"{parent}.{part}".lstrip("."), value, f"no such field{hint}; {place} {shown}")


def in_full(name: str, value: Any) -> Any:
    """A value for the field at dotted `name`; where it names a class in a user's file, that in builtins."""
    is_class = name in PARTS and isinstance(value, str) and names_a_file(value)
    return in_loaded_file(name, value) if is_class else value


def parse(text: str) -> Any:
    """The value of a text: JSON where it parses as JSON, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text


def explain(error: msgspec.ValidationError, data: Any, kind: type) -> InputError:
    """The `InputError` for a validation error: the field's dotted name, the value given, and what is allowed."""
    message, _, where = str(error).partition(" - at ")
    where = where.strip("`").partition("[...]")[0]  # a key of a mapping, which msgspec does not name
    path = [part for part in re.split(r"[.\[\]]", where) if part not in ("", "$")]
    unknown = re.search(r"unknown field `(.+)`", message, re.DOTALL)
    holder, value = _walk(kind, data, path)
    if unknown:
        known = [f for f in getattr(holder, "__struct_fields__", ())]
        field = ".".join([*path, unknown[1]])
        shown = value.get(unknown[1]) if isinstance(value, dict) else value
        return InputError(field, shown, f"no such field{nearest(unknown[1], known)}; has {', '.join(known)}")
    if path and path[-1] == "type":
        tags = _tags(_walk(kind, data, path[:-1], union=True)[0])
        return InputError(".".join(path[:-1]), value, f"must be one of {', '.join(tags)}{nearest(str(value), tags)}")
    words = _words(holder)
    if words:
        words += _tags(holder)
        return InputError(".".join(path), value, f"must be one of {', '.join(words)}{nearest(str(value), words)}")
    return InputError(".".join(path) or "spec", value, message[:1].lower() + message[1:].replace("`", ""))


def _walk(kind: Any, data: Any, path: list[str], union: bool = False) -> tuple[Any, Any]:
    """The type and the value at `path`. Unions are resolved by tag; the last one is not where `union` is set."""
    for i, part in enumerate(path):
        hints = typing.get_type_hints(kind) if hasattr(kind, "__struct_fields__") else {}
        of_items = typing.get_origin(kind) in (tuple, list) and part.isdigit()
        kind = typing.get_args(kind)[0] if of_items else hints.get(part)
        data = data.get(part) if isinstance(data, dict) else _item(data, part)
        if not (union and i == len(path) - 1):
            kind = _member(kind, data)
    return kind, data


def _item(data: Any, part: str) -> Any:
    return data[int(part)] if isinstance(data, list | tuple) and part.isdigit() and int(part) < len(data) else None


def _member(kind: Any, data: Any) -> Any:
    tag = data.get("type") if isinstance(data, dict) else None
    for option in _options(kind):
        if option not in KINDS and hasattr(option, "__struct_config__") and option.__struct_config__.tag == tag:
            return option
    return kind


def _options(kind: Any) -> tuple[Any, ...]:
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if is_union else (kind,)


def _words(kind: Any) -> list[str]:
    """The words that a field may be."""
    return [str(w) for one in _options(kind) if typing.get_origin(one) is typing.Literal for w in typing.get_args(one)]


def _tags(kind: Any) -> list[str]:
    known = [one for one in _options(kind) if hasattr(one, "__struct_config__") and one not in KINDS]
    return [str(one.__struct_config__.tag) for one in known]
