"""Types and shapes of arguments and results are checked at calls in the tests; this makes that cheap.

**Not every call is checked.** In every test file a function is checked at its first calls and at a sample of the later
ones: a loop over thousands of steps would ask the same question thousands of times. A function that is defined inside
another is counted by its definitions: the first ones are checked at every call, of the later ones a sample. `make
thorough` checks all calls.

**Where no array is involved the check is quick.** The import hook of jaxtyping puts its own wrapper around every
function: it binds the shapes that arrays in one signature share, at about a tenth of a millisecond a call. A function
without an array in its signature has no shapes to bind; beartype alone checks it, a hundred times faster. A tree of
arrays of any shape, as `Params`, jaxtyping checks by a copy of typeguard, at every inner node too and with a signature
read each time; `isinstance` of the leaves says the same. Import this module before anything of ebbtide.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import CodeType
from typing import Any, get_args

import jax
import jaxtyping

from effort import THOROUGH

FIRST, EVERY = 20, 20
"""A function is checked at its first 20 calls in a test file, and then at every twentieth."""
calls: Counter[CodeType] = Counter()
"""Calls of every function with arrays, and definitions of every function inside another."""
WHOLE = jaxtyping.jaxtyped
Trees: Any = type(jaxtyping.PyTree)


def has_arrays(annotation: Any) -> bool:
    """Whether an annotation names shapes of arrays; yes for one that is still text."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray | jaxtyping.PyTree):
        return True
    return any(has_arrays(one) for one in get_args(annotation) if not isinstance(one, str))


def due(code: CodeType) -> bool:
    """Whether this call, or definition, of a function is one that is checked."""
    calls[code] += 1
    return THOROUGH or calls[code] <= FIRST or calls[code] % EVERY == 0


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """In place of `jaxtyping.jaxtyped`: a function whose arguments and result are checked at the calls that are due."""
    if fn is None:
        return lambda given: checked(given, typechecker=typechecker)
    if not inspect.isfunction(fn):
        return WHOLE(fn, typechecker=typechecker)
    if "<locals>" in fn.__qualname__ and not due(fn.__code__):
        return fn
    if not any(has_arrays(one) for one in fn.__annotations__.values()):
        return typechecker(fn)
    whole = WHOLE(fn, typechecker=typechecker)
    return whole if "<locals>" in fn.__qualname__ else checked_when_due(fn, whole)


def checked_when_due(fn: Callable[..., Any], whole: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `whole`, which checks types and shapes, when a check is due, and else `fn` itself."""
    code = fn.__code__

    @wraps(fn)
    def call(*arguments: Any, **options: Any) -> Any:
        return (whole if due(code) else fn)(*arguments, **options)

    return call


jaxtyping.jaxtyped = checked
check_tree = Trees._check


def _check_tree(cls: Any, tree: Any, memo: Any) -> bool:
    """In place of jaxtyping's check of a tree: the leaves one by one, where these are arrays and the annotation names
    no structure."""
    leaf = getattr(cls, "leaftype", None)
    if cls.structure is None and inspect.isclass(leaf) and issubclass(leaf, jaxtyping.AbstractArray):
        return all(isinstance(one, leaf) for one in jax.tree.leaves(tree))
    return check_tree(cls, tree, memo)


Trees._check = _check_tree
