"""What may be asked about the prompts of a run, and the limits within which it is answered."""

from typing import Annotated, Literal

import msgspec

MOST_PROMPTS = 500
"""Prompts of an evaluator that can be looked at: the first ones of its stream, at most as many as the run has."""
MOST_CHECKPOINTS = 64
"""Checkpoints in one answer."""
MOST_BYTES = 2**28
"""Bytes of checkpoints that are read for one answer, unless a single one has more."""
MOST_NUMBERS = 200_000
"""Numbers in one answer, unless those of a single checkpoint are more."""
MOST_SHOWN = 512
"""Members whose answers are listed one by one; of more, the first ones are."""

Whole = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A question about a run in the folder `folder`, answered at a block of checkpoints around the one at `at`
    sequences (None: the newest). `member` is a member by its place.

    `what`:
    - "prompt": prompt number `index` of an evaluator, the answers to it, and the attention of `member`. Where members
      have classes and prompts of their own, it is the prompt of `member`, and those answer who share it.
    - "others": the answers of all other members, each to prompt number `index` of its own.
    - "summary": the answers of all members to all prompts of the evaluator.
    """

    what: Literal["prompt", "others", "summary"]
    folder: str
    evaluator: Name
    index: Whole = 0
    member: Whole = 0
    at: Whole | None = None
