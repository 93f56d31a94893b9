"""How much the suite tries: `make test` runs the quick numbers, `make thorough` the large ones."""

import os

THOROUGH = os.environ.get("EBBTIDE_TESTS") == "thorough"


def examples(quick: int, thorough: int) -> int:
    """The number of examples that a property is put to."""
    return thorough if THOROUGH else quick
