"""Python files that a user names: imported once, and known by the SHA-256 of their bytes.

Only a user names a file: on the command line, in Python, or by the class of an object. What is read from a folder (a
run's spec, a sweep's plan) holds the name and the hash of a file, by which one that was loaded is looked up; it never
has a file imported.
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

from ebbtide.errors import InputError, one_line, require

OPTION = "code"
"""The option of the command line that names a file."""
WORDS = re.compile(r"(?P<path>.*\.py)(?::(?P<name>\w*))?", re.DOTALL)
PACKAGE = __name__.partition(".")[0]


class CodeFile(NamedTuple):
    """A file that was imported: where it is, the SHA-256 of the bytes that were run, and its module."""

    path: Path
    sha256: str
    module: ModuleType


_loaded: dict[str, CodeFile] = {}
"""By the name of the module."""
_importing: list[str] = []


class _Loader(SourceFileLoader):
    """Runs the bytes that were hashed: never a file that was changed since, nor a cached translation."""

    def __init__(self, name: str, path: Path, data: bytes):
        super().__init__(name, str(path))
        self._data = data

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._data, self.path)


def names_a_file(words: str) -> bool:
    """Whether words name a Python file, or something in it: `./mine.py`, `./mine.py:Ring`."""
    return WORDS.fullmatch(words) is not None


def split_words(words: str) -> tuple[Path, str]:
    """The path and the name in `./mine.py:Ring`; the name is empty where none is given. Raises `InputError` for words
    that name no Python file."""
    match = WORDS.fullmatch(words)
    if match is None:
        raise InputError(OPTION, words, "must be a Python file, e.g. ./mine.py")
    return Path(match["path"]), match["name"] or ""


def load(words: str, field: str = OPTION, sha256: str | None = None) -> CodeFile:
    """The file that `words` name, imported unless these bytes were imported before; it may import its neighbours.

    To be called with words of the user, never with those in a folder. With `sha256` a file of another content is
    refused and not run. Raises `InputError`, which names the `field`, in one line: no such file, or whatever the file
    raises while it is imported, with its line.
    """
    path, _ = split_words(words)
    try:
        require(path.is_file(), field, words, "no such file")
        data, path = path.read_bytes(), path.resolve()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(field, words, one_line(f"cannot be read: {error}")) from error
    found = hashlib.sha256(data).hexdigest()
    allowed = f"is another file by now: its SHA-256 is {found[:12]}, {(sha256 or '')[:12]} is needed"
    require(sha256 in (None, found), field, words, allowed)
    for one in _loaded.values():
        if (one.sha256, one.path) == (found, path):
            return one
    name = f"{PACKAGE}_file_{path.stem}_{hashlib.sha256(bytes(path) + data).hexdigest()[:16]}"
    try:
        module = _imported(name, path, data)
    except (Exception, SystemExit) as error:  # whatever the user's file raises is the file's fault
        if isinstance(error, InputError):
            raise
        raise InputError(field, words, _with_line(error, path)) from error
    _loaded[name] = CodeFile(path, found, module)
    return _loaded[name]


def _imported(name: str, path: Path, data: bytes) -> ModuleType:
    spec = spec_from_loader(name, _Loader(name, path, data))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    _importing.append(path.name)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        _loaded.pop(name, None)  # where it has made a spec before it failed
        raise
    finally:
        _importing.pop()
        sys.path.remove(str(path.parent))
    return module


def _with_line(error: BaseException, path: Path) -> str:
    """An error in one line, after the last line of the file that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    line = error.lineno if isinstance(error, SyntaxError) and not lines else lines[-1] if lines else None
    at = f"line {line}: " if line else ""
    return one_line(f"{at}{type(error).__name__}: {error}")


def explain(error: BaseException) -> InputError | None:
    """The `InputError` for an error that came through a user's file, with the file's line; None for any other."""
    paths = {one.path for one in _loaded.values()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (path := Path(frame.filename)) in paths:
            return InputError(OPTION, path.name, _with_line(error, path))
    return None


def check_not_importing() -> None:
    """Raises `InputError` while a file is imported: a script that trains when it is imported would be started again by
    every process that trains for it."""
    allowed = "trains while it is imported: put that part under `if __name__ == '__main__':`"
    require(not _importing, OPTION, "".join(_importing[-1:]), allowed)


def is_own(kind: type) -> bool:
    """Whether a class is a user's own, and none of this package."""
    return kind.__module__.partition(".")[0] != PACKAGE


def file_of(kind: type) -> CodeFile:
    """The file that a class is defined in, at its top. Raises `InputError` where there is none, as in a notebook."""
    module = sys.modules.get(kind.__module__)
    path = Path(getattr(module, "__file__", None) or "")
    top = module is not None and getattr(module, kind.__name__, None) is kind
    allowed = "must be a class at the top of a Python file, where another process finds it"
    require(top and path.is_file(), OPTION, kind.__name__, allowed)
    assert module is not None
    if kind.__module__ not in _loaded:
        _loaded[kind.__module__] = CodeFile(path.resolve(), hashlib.sha256(path.read_bytes()).hexdigest(), module)
    return _loaded[kind.__module__]


def versions(name: str) -> list[CodeFile]:
    """The loaded files of this name, the latest last: more than one where the file was changed meanwhile."""
    return [one for one in _loaded.values() if one.path.name == name]


def find(words: str) -> CodeFile | None:
    """The loaded file that a path is the path of; None where it was not loaded. Imports nothing."""
    path = split_words(words)[0]
    try:
        return next((one for one in reversed(_loaded.values()) if one.path == path.resolve()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def use(file: str | os.PathLike[str]) -> ModuleType:
    """Imports a Python file of yours, so that runs with its tasks, sources and models can be made and read.

    Args:
        file: the path of the file.

    Returns:
        The file's module. A file that was imported and has not changed is not imported again.

    Raises:
        InputError: there is no such file, or what the file raised.

    >>> from pathlib import Path
    >>> text = "import ebbtide as eb; Short = type('Short', (eb.Regression,), {}, frozen=True)"
    >>> _ = Path("short.py").write_text(text)
    >>> task = eb.use("short.py").Short(context=4)
    >>> eb.Spec(task=task, source=eb.Functions(), evaluators=("train",)).shape()
    {'context': 4, 'dim': 8, 'labels': 0}
    """
    return load(os.fspath(file)).module


def to_words(needed: Collection[str]) -> list[str]:
    """The loaded files with these SHA-256 as words by which a process that is started here can load them: see
    `load_words`."""
    return [f"{one.sha256}:{one.path}" for one in _loaded.values() if one.sha256 in needed]


def load_words(words: Iterable[str]) -> None:
    """Loads the files that the process which started this one has loaded. Raises `InputError` where one has another
    content here; it is not run."""
    known = {one.sha256 for one in _loaded.values()}
    for sha256, _, path in (one.partition(":") for one in words):
        if sha256 not in known:
            load(path, sha256=sha256)
