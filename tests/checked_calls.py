"""Types of arguments are checked at every call in the tests; this makes that cheap where no array is involved.

The import hook of jaxtyping puts its own wrapper around every function: it binds the shapes that arrays in one
signature share, at about a tenth of a millisecond a call. A function without an array in its signature has no shapes
to bind; beartype alone checks it, a hundred times faster. A tree of arrays of any shape, as `Params`, jaxtyping checks
by a copy of typeguard, at every inner node too and with a signature read each time; `isinstance` of the leaves says the
same. Import this module before anything of ebbtide.
"""

import inspect
from typing import Any, get_args

import jax
import jaxtyping

WHOLE = jaxtyping.jaxtyped
Trees: Any = type(jaxtyping.PyTree)


def has_arrays(annotation: Any) -> bool:
    """Whether an annotation names shapes of arrays; yes for one that is still text."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray | jaxtyping.PyTree):
        return True
    return any(has_arrays(one) for one in get_args(annotation) if not isinstance(one, str))


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """In place of `jaxtyping.jaxtyped`: a function whose arguments and result are checked at every call."""
    if fn is None:
        return lambda given: checked(given, typechecker=typechecker)
    if not inspect.isfunction(fn) or any(has_arrays(one) for one in fn.__annotations__.values()):
        return WHOLE(fn, typechecker=typechecker)
    return typechecker(fn)


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
