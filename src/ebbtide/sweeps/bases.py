"""The preset of a study as the base of a sweep."""

from collections.abc import Callable
from importlib import import_module

from ebbtide.training.spec import Spec

REGISTRY = "ebbtide.papers.registry"
"""The module that lists all studies. It is on a higher floor than this package, so it is loaded by name, and only where
a description names a study."""


def preset_of(study: str, preset: str) -> Spec:
    """The spec of a study's preset. Raises `InputError` for an unknown study or preset."""
    find: Callable[[str, str], Spec] = import_module(REGISTRY).preset_of
    return find(study, preset)
