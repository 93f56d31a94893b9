"""ebbtide: the lab bench for the training dynamics of in-context learning.

The public names and their modules are listed once, in `__init__.pyi`, where type checkers look for them. A name is
loaded on its first use, so that `import ebbtide` and `ebbtide --help` load no JAX.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _modules() -> dict[str, str]:
    """The module of every public name, from lines `from ebbtide.MODULE import NAME as NAME`."""
    lines = [line.split() for line in Path(__file__).with_suffix(".pyi").read_text("utf-8").splitlines()]
    return {words[3]: words[1].removeprefix("ebbtide.") for words in lines if words[:1] == ["from"]}


_MODULES = _modules()
__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll] - names are loaded on first use


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"ebbtide.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ebbtide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
