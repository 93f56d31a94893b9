"""What the numbers of a contest follow from, beside what its members did: code, and what is known of the cells."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from ebbtide import __version__
from ebbtide.contest.theory import Facts, Theory
from ebbtide.errors import InputError
from ebbtide.user_code import file_of, is_own


def code_digest(theory: Theory) -> str:
    """SHA-256 of ebbtide's version, the contest's code, a user's own file and the theory's settings; empty for a class
    that is in no file, whose code may have changed without a trace."""
    code = hashlib.sha256(_package_digest().encode())
    if is_own(type(theory)):
        try:
            code.update(file_of(type(theory)).sha256.encode())
        except InputError:
            return ""
    code.update(repr((theory.name, repr(theory))).encode())
    return code.hexdigest()


@cache
def _package_digest() -> str:
    """SHA-256 of the contest's files and ebbtide's version, which stay what they are while a process runs."""
    code = hashlib.sha256(__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def facts_digest(facts: Facts) -> str:
    """SHA-256 of a cell's name, the values of its axes, its spec and its pure runs."""
    code = hashlib.sha256(repr((facts.name, sorted(facts.config.items()), facts.spec)).encode())
    for kind in sorted(facts.pure):
        for name, curve in sorted(facts.pure[kind].items()):
            code.update(repr((kind, name)).encode())
            code.update(np.ascontiguousarray(curve, np.float64).tobytes())
    return code.hexdigest()
