"""Packages that only a tracker needs."""

from importlib import import_module
from typing import Any

from ebbtide.errors import InputError


def load(package: str, module: str) -> Any:
    """A module of an optional package. Raises `InputError` when the package is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        allowed = f"needs {package}: pip install 'ebbtide[{package}]'"
        raise InputError("to", package, allowed) from error
