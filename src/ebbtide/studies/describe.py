"""Specs in words for people: fields by dotted name, differences, seeds, and the command that repeats a run."""

import shlex
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from ebbtide.errors import InputError
from ebbtide.runs.folder import RunFolder
from ebbtide.traced import default
from ebbtide.training.fields import override
from ebbtide.training.identity import DEEPEST
from ebbtide.training.spec import VARIED_SEEDS, Spec, from_builtins

Flat = dict[str, Any]
"""Fields by dotted name, structs before their fields; a struct that is one of several is named by its tag, one in a
user's file by the file and the class."""

INCIDENTAL = ("schedule", "evaluators", "evaluation_sequences", "seeds", "keep_best", "stopping", "members", "vary")
"""Parts of a spec that say how a question is asked, not how large it is."""
MISSING = object()


def flat(data: dict[str, Any], prefix: str = "") -> Flat:
    """The fields of a spec in builtins. Takes any dict: what is nested deeper than a spec can be stays as it is."""
    out: Flat = {}
    for name, value in data.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and full != "vary" and full.count(".") < DEEPEST:
            if value.get("type") == "custom" and isinstance(value.get("fields"), dict):
                out[full] = f"{value.get('file')}:{value.get('name')}"
                value = {"sha256": value.get("sha256")} | value["fields"]
            elif "type" in value:
                out[full] = value["type"]
            out |= flat(value, f"{full}.")
        elif name != "type":
            out[full] = list(value) if isinstance(value, tuple) else value
    return out


def defaults(spec: Spec) -> Flat:
    """The defaults of the fields that this spec has, each in the struct that there is; none for one that must be
    given, or whose struct is not there by default."""
    return _defaults(spec, None, "")


def _defaults(struct: msgspec.Struct, plain: msgspec.Struct | None, prefix: str) -> Flat:
    out: Flat = {}
    for field in msgspec.structs.fields(struct):
        name, own = f"{prefix}{field.name}", getattr(struct, field.name)
        usual = default(field) if plain is None else getattr(plain, field.name)
        if isinstance(own, msgspec.Struct):
            if (tag := _tag(usual)) is not None:
                out[name] = tag
            if isinstance(usual, msgspec.Struct):
                out |= _defaults(own, usual if type(usual) is type(own) else None, f"{name}.")
        elif isinstance(usual, msgspec.Struct):
            out[name] = _tag(usual) or "given"
        elif usual is not msgspec.NODEFAULT and usual is not msgspec.UNSET:
            found = msgspec.to_builtins(usual)
            out[name] = list(found) if isinstance(found, tuple) else found
    return out


def differing(spec: dict[str, Any], other: Flat) -> Flat:
    """The fields of a spec in builtins whose values are not those of `other`, or are not there."""
    return {name: value for name, value in flat(spec).items() if value != other.get(name, MISSING)}


def within(name: str, fields: Collection[str]) -> bool:
    """Whether a field is one of `fields` or a part of one."""
    return any(name == one or name.startswith(f"{one}.") for one in fields)


def seeds(spec: dict[str, Any]) -> str:
    """`members 0 to 3; seeds.init 0, seeds.data 0, seeds.evaluation 0, source.seed 0`: every seed of a run."""
    fields, vary = flat(spec), spec.get("vary")
    varied = {name: vary[name] for name in VARIED_SEEDS if name in vary} if isinstance(vary, dict) else {}
    first, count = fields.get("seeds.member", 0), spec.get("members", 1)
    members = "member " + str(first) if count == 1 else f"members {first} to {first + count - 1}"
    if "seeds.member" in varied:
        members = f"members {_several(varied.pop('seeds.member'))}"
    names = [name for name in fields if name.startswith("seeds.") or name.rpartition(".")[2].endswith("seed")]
    own = {name: fields[name] for name in names if name != "seeds.member"}
    found = {name: value for name, value in own.items() if name != "seeds.world" or value is not None} | varied
    words = [f"{name} {_several(v) if isinstance(v, list) else value_text(v)}" for name, v in found.items()]
    return "; ".join([members, ", ".join(words)] if words else [members])


def trained_by(runs: Iterable[RunFolder]) -> str:
    """Words on what trained runs: `compiled kernel, cpu (AMD EPYC), float32`; several where runs differ."""
    found: list[str] = []
    for run in {run.path: run for run in runs}.values():
        identity = run.header.identity
        kernel = str(identity.get("kernel", "xla"))
        name = "XLA" if kernel == "xla" else "compiled kernel"
        device = f"{identity.get('platform', '?')} ({identity.get('processor') or identity.get('device', '?')})"
        found.append(f"{name}, {device}, float32")
    return "; ".join(dict.fromkeys(found))


def scale_words(spec: dict[str, Any], paper: Spec, note: str, but: Collection[str] = ()) -> str:
    """Words on the differences between a run's sizes and parts and those of the study's preset `paper`, which `note`
    describes; the fields `but` are left out."""
    original = flat(paper.builtins())
    changed = [
        f"{name} {value_text(value)} (paper: {value_text(original[name])})"
        for name, value in differing(spec, original).items()
        if name in original and not within(name, but) and name.partition(".")[0] not in INCIDENTAL
    ]
    ours, theirs = copied_queries(flat(spec)), copied_queries(original)
    if f"{ours:.0%}" != f"{theirs:.0%}" and not any(within(name, but) for name in COPYING):
        changed.append(f"bursty sequences whose query equals a context exemplar {ours:.0%} (paper: {theirs:.0%})")
    return ", ".join(changed) or note


COPYING = ("task.exemplar_draw", "task.burst", "source.exemplars", "source.infinite")
"""Fields that decide how often a query is an exact copy of a context exemplar."""


def copied_queries(fields: Flat) -> float:
    """The share of bursty few-shot sequences whose query equals a context exemplar: the query's class is in context
    `burst` times, each time with one of so many exemplars. 0 for any other task, and for fields that no spec has."""
    draw, burst, exemplars, infinite = (fields.get(name) for name in COPYING)
    if not isinstance(burst, int) or not 0 < burst < 2**31 or draw not in ("independent", "match"):
        return 0.0
    if draw == "match":
        return 1.0
    return 0.0 if infinite or not isinstance(exemplars, int) or exemplars < 1 else 1 - (1 - 1 / exemplars) ** burst


def run_command(study: str, preset: str, base: Spec, spec: dict[str, Any]) -> str:
    """The command that trains this spec: the preset, whose spec is `base`, and the fields that differ from it.

    Empty when this version of ebbtide cannot make that spec: what is given is checked to be it.
    """
    words, data = ["ebbtide", "run", study, "--preset", preset], base.builtins()
    try:
        wanted = from_builtins(spec).digest()
        for name, value in flat(spec).items():
            if flat(data).get(name, MISSING) != value:
                override(Spec, data, name, field_text(value))
                words += field_words(name, value)
        digest = from_builtins(data).digest()
    except InputError:
        return ""
    return shlex.join(words) if digest == wanted else ""


def field_words(name: str, value: Any) -> list[str]:
    """The words of a command line that set a field to a value."""
    return option_words(name, field_text(value))


def option_words(name: str, text: str) -> list[str]:
    """The words of a command line that set a field to a value that is written as text."""
    return [f"--{name}={text}"] if text.startswith("--") else [f"--{name}", text]


def data_needed(spec: Spec) -> str:
    """The files that a run reads in addition to its spec, in words for people."""
    return spec.source.data_needed()


def value_text(value: Any) -> str:
    """A value as a reader wants it: 1,600 and 0.0003, lists without brackets, text as it is."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case int():
            return f"{value:,}" if abs(value) < 10**15 else f"{value:.6g}"
        case float():
            return f"{value:.6g}" if abs(value) < 1e5 or value % 1 else f"{value:,.0f}"
        case str():
            return value
        case list() | tuple():
            return _several(value)
        case dict():
            return "; ".join(f"{name}: {value_text(inner)}" for name, inner in value.items()) or "none"
    return str(value)


def _several(values: Any) -> str:
    return ", ".join(value_text(value) for value in values) or "none"


def field_text(value: Any) -> str:
    """A value as the command line reads it: JSON, but for text that is read as itself."""
    encoded = msgspec.json.encode(value).decode()
    if not isinstance(value, str):
        return encoded
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return value
    return encoded


def _tag(value: Any) -> str | None:
    tag = value.__struct_config__.tag if isinstance(value, msgspec.Struct) else None
    return None if tag is None else str(tag)
