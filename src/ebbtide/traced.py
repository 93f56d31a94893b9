"""Numbers of a spec that may differ between the members of one run.

A field annotated `Traced` enters the compiled program as a value and not as a constant, so members with different
values share one program. Code that uses such a field must not branch on it in Python.
"""

from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
Traced = Annotated[float, msgspec.Meta(extra={"traced": True})]


def traced_fields(struct: msgspec.Struct, prefix: str = "") -> list[str]:
    """The dotted names of all traced fields of a spec, e.g. `optimizer.lr`."""
    names: list[str] = []
    own = _traced_names(type(struct))
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            names += traced_fields(value, f"{prefix}{name}.")
        elif name in own:
            names.append(prefix + name)
    return names


@lru_cache
def _traced_names(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The names of the fields of a struct that are annotated `Traced`."""
    hints = get_type_hints(kind, include_extras=True)
    metas = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}
    return frozenset(
        name
        for name, given in metas.items()
        if any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("traced") for meta in given)
    )


def kind_name(struct: Any) -> str:
    """Name of a struct in messages: its tag, or the name of its class where it has no tag, as a user's own may."""
    return str(type(struct).__struct_config__.tag or type(struct).__name__)


def replace_at(struct: S, name: str, value: object) -> S:
    """`struct` with the field at dotted `name` replaced; `value` is not checked, since it may be traced."""
    head, _, tail = name.partition(".")
    if tail:
        value = replace_at(getattr(struct, head), tail, value)
    return msgspec.structs.replace(struct, **{head: value})


def value_at(struct: msgspec.Struct, name: str) -> Any:
    """The value of the field at dotted `name`."""
    at: Any = struct
    for part in name.split("."):
        at = getattr(at, part)
    return at


def default_at(struct: msgspec.Struct, name: str) -> Any:
    """The default of the field at dotted `name`."""
    parent, _, last = name.rpartition(".")
    holder = value_at(struct, parent) if parent else struct
    return next(default(one) for one in fields_of(type(holder)) if one.name == last)


fields_of = lru_cache(msgspec.structs.fields)
"""The fields of a type of struct, with their defaults (`msgspec.structs.FieldInfo`)."""


def default(field: Any) -> Any:
    """The default of a struct's field (`msgspec.structs.FieldInfo`), `NODEFAULT` where it has none."""
    made = field.default_factory is not msgspec.NODEFAULT
    return field.default_factory() if made else field.default
