"""Tasks, sources and models in a user's own file.

In a spec in memory the part is the user's object, and is asked what every task, source or model is asked. In JSON, in
digests and in folders it is data: the file's name and SHA-256, the name of the class, and its fields. Reading data
imports nothing: a part whose file was not loaded (`user_code.load`) stays data, and refuses every question in one line.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import msgspec
from msgspec.structs import replace

from ebbtide import user_code
from ebbtide.errors import InputError, nearest, one_line, require
from ebbtide.models.model import Model
from ebbtide.sources.bank import SourceLike
from ebbtide.tasks.prompt import FunctionPrompt, Prompt
from ebbtide.tasks.task import Task
from ebbtide.traced import default
from ebbtide.user_code import CodeFile

MOST_BYTES = 2**16
"""Largest number of bytes of the fields in JSON."""
FIELD = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)

FileName = Annotated[str, msgspec.Meta(pattern=r"\A[^/\\\x00-\x1f]{1,251}\.py\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
ClassName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]


class Custom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a spec whose class is in a user's file, as data (abstract): `file` and `sha256` say which file, `name`
    which class, `fields` hold all its fields."""

    part: ClassVar[str]
    """Of which part of a spec it is a kind."""
    protocol: ClassVar[type]
    """What a class of this kind must answer."""
    more: ClassVar[tuple[str, ...]] = ()
    """Names that it must have beside those of `protocol`."""

    file: FileName
    sha256: Sha256
    name: ClassName
    fields: dict[str, Any] = {}

    def __post_init__(self) -> None:
        names = self.fields if isinstance(self.fields, dict) else {}
        wrong = [name for name in names if not isinstance(name, str) or not FIELD.fullmatch(name)]
        require(not wrong, f"{self.part}.fields", wrong[:1], "names of fields are letters, digits and _")
        size = len(msgspec.json.encode(self.fields))
        require(size <= MOST_BYTES, f"{self.part}.fields", f"{size} bytes", f"must be at most {MOST_BYTES}")

    def __hash__(self) -> int:
        return hash((self.file, self.sha256, self.name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self.fields and not callable(getattr(self.protocol, name, None)):
            return self.fields[name]
        others = [one.sha256 for one in user_code.versions(self.file)]
        needed = f"SHA-256 {self.sha256[:12]}"
        allowed = f"its class is in a file of yours: name it by --code {self.file} (in Python: eb.use); {needed}"
        if others:
            allowed = f"the file is another one by now: {needed} is needed, that of the file is {others[-1][:12]}"
        raise InputError(self.part, f"{self.file}:{self.name}", allowed)

    def load(self) -> Any:
        """The user's object, this one where its file was not loaded. Raises `InputError` where the file has no such
        class, or the class no such fields."""
        files = [one for one in user_code.versions(self.file) if one.sha256 == self.sha256]
        return _convert(type(self), find_class(type(self), files[-1], self.name), self.fields) if files else self


class CustomTask(Custom, frozen=True, tag="custom"):
    """A task in a user's file."""

    part = "task"
    protocol = Task


class CustomSource(Custom, frozen=True, tag="custom"):
    """A source in a user's file."""

    part = "source"
    protocol = SourceLike

    def data_needed(self) -> str:
        return f"what {self.file} says of its class {self.name}"


class CustomModel(Custom, frozen=True, tag="custom"):
    """A model in a user's file; its class is a `Model`, so that it has a loss."""

    part = "model"
    protocol = Model
    more = ("pairing",)


KINDS: tuple[type[Custom], ...] = (CustomTask, CustomSource, CustomModel)


def as_data(spec: Any) -> Any:
    """A spec in which objects of a user's classes are data. Raises `InputError` where another process could not find
    such a class again."""
    own = {kind.part: getattr(spec, kind.part, None) for kind in KINDS}
    own = {name: one for name, one in own.items() if isinstance(one, msgspec.Struct) and user_code.is_own(type(one))}
    found = {kind.part: _described(kind, own[kind.part]) for kind in KINDS if kind.part in own}
    return replace(spec, **found) if found else spec


def with_code(spec: Any) -> Any:
    """A spec in which data are objects of a user's classes, where their files were loaded: the inverse of `as_data`."""
    data = {kind.part: getattr(spec, kind.part) for kind in KINDS}
    found = {name: one.load() for name, one in data.items() if isinstance(one, Custom)}
    return replace(spec, **found) if found else spec


def in_loaded_file(part: str, words: str) -> dict[str, Any]:
    """The task, source or model that `./mine.py:Ring` names, with its defaults, in builtins; `./mine.py` where the file
    has one. Imports nothing: raises `InputError` where the user has not named the file, or it has no such class."""
    kind = next(one for one in KINDS if one.part == part)
    file = user_code.find(words)
    if file is None:
        raise InputError(part, words, f"is no file that was named on the command line or by eb.use: --code {words}")
    name = user_code.split_words(words)[1]
    known = [one for one in vars(file.module) if _is_class(kind, file, one)]
    allowed = f"must be FILE.py:NAME; the file has the {part}s {', '.join(known) or 'none'}"
    require(bool(name) or len(known) == 1, part, words, allowed)
    return msgspec.to_builtins(_described(kind, find_class(kind, file, name or known[0])()))


def files_needed(specs: Iterable[dict[str, Any]]) -> list[str]:
    """The words by which another process can load the files of these specs (in builtins): see `user_code`."""
    parts = (spec.get(kind.part) for spec in specs for kind in KINDS)
    return user_code.to_words({str(one.get("sha256")) for one in parts if isinstance(one, dict) and "sha256" in one})


def find_class(kind: type[Custom], file: CodeFile, name: str) -> Any:
    """The class of a user's file. Raises `InputError` unless it is one of this kind."""
    found, words = getattr(file.module, name, None), f"{file.path.name}:{name}"
    known = [one for one in vars(file.module) if _is_class(kind, file, one)]
    have = f"the file has the {kind.part}s {', '.join(known) or 'none'}{nearest(name, known)}"
    require(isinstance(found, type), kind.part, words, f"there is no such class; {have}")
    assert isinstance(found, type)
    struct = issubclass(found, msgspec.Struct) and found.__struct_config__.frozen
    require(struct, kind.part, words, f"must be a frozen msgspec struct; {have}")
    plain = found.__struct_encode_fields__ == found.__struct_fields__ and not found.__struct_config__.array_like
    require(plain, kind.part, words, "must have its fields under their own names: without rename and array_like")
    lacks = _missing(kind, found)
    require(not lacks, kind.part, words, f"is no {kind.part}: it has no {', '.join(lacks)}; {have}")
    open_fields = [one.name for one in msgspec.structs.fields(found) if default(one) is msgspec.NODEFAULT]
    require(not open_fields, kind.part, words, f"every field needs a default, as has not {', '.join(open_fields)}")
    return found


def _is_class(kind: type[Custom], file: CodeFile, name: str) -> bool:
    """Whether a name in a file is a class of this kind that the file itself defines."""
    found = getattr(file.module, name)
    own = isinstance(found, type) and found.__module__ == file.module.__name__ and not name.startswith("_")
    return own and not _missing(kind, found)


def _missing(kind: type[Custom], found: type) -> list[str]:
    """The names that a class lacks to be of this kind."""
    names = [name for name in vars(kind.protocol) if not name.startswith("_")]
    return [name for name in (*names, *kind.more) if not hasattr(found, name)]


def _described(kind: type[Custom], value: Any) -> Custom:
    """A user's object as data, its fields in their types."""
    file, name = user_code.file_of(type(value)), type(value).__name__
    find_class(kind, file, name)
    fields = _convert(kind, type(value), _fields(kind, value))
    return kind(file.path.name, file.sha256, name, _fields(kind, fields))


def _fields(kind: type[Custom], value: Any) -> dict[str, Any]:
    """The fields of an object in builtins, without those that are not set."""
    own = {one: getattr(value, one) for one in value.__struct_fields__}
    try:
        return {one: msgspec.to_builtins(given) for one, given in own.items() if given is not msgspec.UNSET}
    except (TypeError, ValueError) as error:
        raise InputError(kind.part, type(value).__name__, one_line(f"its fields must be data: {error}")) from error


def _convert(kind: type[Custom], own: type, fields: dict[str, Any]) -> Any:
    """The object of a user's class with these fields. Raises `InputError` for a field that it does not take."""
    try:
        return msgspec.convert(fields, own)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        name = where.rstrip("`").lstrip(".")
        value = fields.get(name.partition(".")[0].partition("[")[0], own.__name__)
        allowed = one_line(message[:1].lower() + message[1:].replace("`", ""))
        raise InputError(f"{kind.part}.{name}".rstrip("."), value, allowed) from error
    except (TypeError, NameError) as error:  # a field's annotation
        raise InputError(kind.part, own.__name__, one_line(f"its fields must be data: {error}")) from error


def try_out(spec: Any) -> None:
    """Raises `InputError` where a user's task draws no prompts of the shape that its fields promise, or a model does
    not answer them; nothing is computed. For specs with a part in a user's file alone."""
    if not any(user_code.is_own(type(getattr(spec, kind.part))) for kind in KINDS):
        return
    task, source, shape, batch = spec.task, spec.source, spec.shape(), 2
    key, index = jax.random.key(0), jnp.arange(batch, dtype=jnp.uint32)
    split = source.sizes().split()
    try:
        bank = jax.eval_shape(source.build)
    except TypeError:  # it computes with NumPy
        bank = source.build()
    prompt = jax.eval_shape(lambda bank: task.sample(key, index, source, bank, split), bank)
    name, slots = type(task).__name__, shape["context"] + 1
    require(isinstance(prompt, task.prompt_type), "task", name, f"must draw a {task.prompt_type.__name__}")
    inputs, wanted = (prompt.exemplars if isinstance(prompt, Prompt) else prompt.inputs), (slots, batch, shape["dim"])
    allowed = f"draws inputs of shape {inputs.shape}; context and source need {wanted} [slot, sequence, feature]"
    require(inputs.shape == wanted, "task", name, allowed)
    said = prompt.responses if isinstance(prompt, FunctionPrompt) else prompt.labels
    wanted = (slots if isinstance(prompt, FunctionPrompt) else slots - 1, batch)
    allowed = f"draws labels or responses of shape {said.shape}; it must begin with {wanted} [slot, sequence]"
    require(said.shape[:2] == wanted, "task", name, allowed)
    params = jax.eval_shape(lambda: spec.model.init(key, **shape))
    found = jax.eval_shape(spec.model.apply, params, prompt).shape
    few_shot = isinstance(prompt, Prompt)
    fits = found == (batch, shape["labels"]) if few_shot else len(found) == 3 and found[1] == batch
    allowed = f"answers with the shape {found}; needed is [sequence, label], of functions [slot, sequence, number]"
    require(fits, "model", type(spec.model).__name__, allowed)
