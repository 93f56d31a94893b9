"""Weight forgetting: some parameters are drawn again at regular intervals, so that what they knew is lost."""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Bool, Key, UInt

from ebbtide.errors import require
from ebbtide.models.model import Params
from ebbtide.training.optimizer import OptState
from ebbtide.training.start import dotted_name, select, to_dotted

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Forgetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters that are drawn again from their initial distribution after every so many sequences (Anand et al. 2025,
    arXiv 2406.00053). For ever this is their *active* forgetting, and with `until` their *temporary* forgetting.

    Args:
        every: the time between two draws, in *sequences*: a multiple of the batch, below the length of the run.
        until: the last time, in *sequences*, at which parameters may be drawn again. None: to the end of the run.
        parts: globs of the parameters that are forgotten. The default are the embeddings of exemplars and of labels.
        moments: whether the optimiser's moments of these parameters become zero with them. Its count of steps, by which
            Adam corrects its bias, goes on in any case.

    Parameters are drawn at the beginning of the step after `every`, 2 `every`, ... sequences. An evaluation or a
    checkpoint at one of these times therefore sees the model that has trained longest since the draw before, and after
    the last step of a run nothing is drawn. The draw at step t is that of an untrained model, by the key fold_in(root,
    t); the root is that of the seed `seeds.init` for the purpose FORGETTING.

    The public code (github.com/surajK610/dual_process) differs: it draws from N(0, 1) in place of its model's initial
    N(0, .02^2). With an end it sets the moments of all parameters to zero and begins their bias corrections anew;
    without an end it leaves all moments as they are.

    >>> spec = eb.Spec(sequences=128_000, forgetting=eb.Forgetting(every=12_800, until=64_000))
    >>> spec.check()
    >>> spec.forgetting.parts
    ('exemplar.*', 'label.*')
    """

    every: Positive
    until: Positive | None = None
    parts: tuple[str, ...] = ("exemplar.*", "label.*")
    moments: bool = True

    def check(self, batch: int, sequences: int, names: list[str], frozen: tuple[str, ...]) -> None:
        """Raises `InputError` unless parameters of these names can be drawn again at these times, and none of them is
        frozen (`Spec.freeze`)."""
        allowed = f"must be a multiple of batch = {batch}, below sequences = {sequences}"
        require(self.every % batch == 0 and self.every < sequences, "forgetting.every", self.every, allowed)
        last = self.every if self.until is None else self.until
        require(last >= self.every, "forgetting.until", self.until, f"must be at least every = {self.every}")
        require(len(self.parts) > 0, "forgetting.parts", self.parts, "must name parameters, e.g. exemplar.*")
        chosen = select(self.parts, names, "forgetting.parts")
        both = sorted({*chosen}.intersection(select(frozen, names, "freeze")))
        allowed = f"names {', '.join(both)}, which freeze keeps as drawn at first"
        require(not both, "forgetting.parts", self.parts, allowed)

    def is_due(self, step: UInt[Array, ""], batch: int) -> Bool[Array, ""]:
        """Whether parameters are drawn again at the beginning of a step, counted from 0."""
        due = (step > 0) & (step % jnp.uint32(self.every // batch) == 0)
        return due if self.until is None else due & (step <= jnp.uint32(self.until // batch))

    def forget(
        self,
        params: Params,
        optimizer: OptState,
        step: UInt[Array, ""],
        batch: int,
        key: Key[Array, ""],
        draw: Callable[[Key[Array, ""]], Params],
    ) -> tuple[Params, OptState]:
        """Parameters and optimiser state as a step finds them: drawn again by `draw` where it is due."""
        leaves, tree = jax.tree_util.tree_flatten_with_path((params, optimizer))
        names = [dotted_name(path) for path, _ in leaves]
        chosen = set(select(self.parts, [*to_dotted(params)], "forgetting.parts"))
        at = {name: i for i, name in enumerate(names) if _parameter_of(name) in chosen}
        if not self.moments:
            at = {name: i for name, i in at.items() if name.startswith(PARAMS)}

        def anew(old: list[Array]) -> list[Array]:
            fresh = to_dotted(draw(jax.random.fold_in(key, step)))
            return [
                fresh[_parameter_of(name)] if name.startswith(PARAMS) else jnp.zeros_like(one)
                for name, one in zip(at, old, strict=True)
            ]

        values: list[Any] = [leaf for _, leaf in leaves]
        some = jax.lax.cond(self.is_due(step, batch), anew, lambda old: old, [values[i] for i in at.values()])
        for i, one in zip(at.values(), some, strict=True):
            values[i] = one
        return tree.unflatten(values)


PARAMS = "0."
"""How the dotted names of parameters begin in the pair (parameters, optimiser state)."""


def _parameter_of(name: str) -> str:
    """The parameter to which an array of the pair (parameters, optimiser state) belongs: `label.table` of both
    `0.label.table` and `1.mu.label.table`."""
    of = name.partition(".")[2]
    return of if name.startswith(PARAMS) else of.partition(".")[2]
