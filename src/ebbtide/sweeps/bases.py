"""The preset of a study, on which a sweep may be based."""

from collections.abc import Callable
from importlib import import_module

from ebbtide.training.spec import Spec

REGISTRY = "ebbtide.papers.registry"
"""The module that lists all studies. It is above this package, whose files import nothing of it: it is loaded by its
name where a description names a study."""


def preset_of(study: str, preset: str) -> Spec:
    """The spec of a study's preset. Raises `InputError` for a study or a preset that is not known."""
    find: Callable[[str, str], Spec] = import_module(REGISTRY).preset_of
    return find(study, preset)
