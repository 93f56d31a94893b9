"""Optimisers: typed interfaces to optax, with a learning rate that may differ between members."""

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import msgspec
import optax
from jaxtyping import Array, Float, UInt

from ebbtide.errors import require
from ebbtide.kernel.native import Kernel
from ebbtide.models.model import AnyPrompt, Params
from ebbtide.traced import Traced
from ebbtide.training.schedule import Constant, LearningRate

Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
OptState = Any


PLACES: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "mlp": lambda name: ".mlp." in name,
    "attention": lambda name: ".attn." in name,
    "encoder": lambda name: name.startswith("exemplar."),
    "embeddings": lambda name: name.startswith(("label.", "position")),
}
"""Tests of a parameter's dotted name (e.g. `blocks.0.attn.q`): whether `WeightDecay.on` selects it."""


QKV = re.compile(r"\.attn\.[qkv](_b)?$")
"""The end of the names of queries, keys and values, and of their biases."""


class WeightDecay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Regularisation of the weights w that `on` selects, with coefficient c (2311.08360, sections 5 and 6).

    Args:
        form: the form of the penalty, see below.
        coefficient: c, at least 0; a traced field, so it may differ between members.
        on: "all": every array, biases, norms and tables included; "mlp": the MLPs; "attention"; "encoder": the exemplar
            embedding; "embeddings": the label and position tables. A model without such parameters is unchanged.

    - `l2`: c/2 * sum |w|^2 in the loss: gradient + c w, before the optimiser sees it;
    - `norms`: c * sum over arrays of |w| in the loss: gradient + c w/|w|, 0 where w = 0;
    - `norms_qkv`: the same with q, k and v of a layer (and their biases) as one array: gradient + c w/|(q, k, v)|. This
      is the penalty of the public code of Singh et al. 2023 and 2025, which holds the three in one array; `norms` pulls
      them the root of 3 times as hard. That code's learned positions are 32, whatever the prompt: `Learned(spare=27)`
      with 5 tokens;
    - `decoupled`: p <- p - lr * factor * (direction + c p) (Loshchilov & Hutter 2019, AdamW).

    Coefficients of different forms are not comparable. The training loss that a run reports does not include the
    regularisation.

    >>> eb.Adam(decay=eb.WeightDecay(form="decoupled", coefficient=0.1)).decay.on
    'all'
    """

    form: Literal["l2", "norms", "norms_qkv", "decoupled"] = "l2"
    coefficient: Traced = 0.0
    on: Literal["all", "mlp", "attention", "encoder", "embeddings"] = "all"

    def check(self) -> None:
        """Raises `InputError` for a negative coefficient."""
        require(self.coefficient >= 0, "optimizer.decay.coefficient", self.coefficient, "must be 0 or larger")

    def decay_factors(self, params: Params) -> Params:
        """Factor of the decay term of every array: c (divided by the norm in the forms of norms) where `on` selects the
        array, else 0."""
        leaves, tree = jax.tree_util.tree_flatten_with_path(params)
        arrays = {jax.tree_util.keystr(path, simple=True, separator="."): w for path, w in leaves}
        inverse = self._inverse_norms(arrays) if self.form in ("norms", "norms_qkv") else dict.fromkeys(arrays, 1.0)
        selected = PLACES[self.on]
        return tree.unflatten(
            [jnp.float32(self.coefficient * one if selected(name) else 0) for name, one in inverse.items()]
        )

    def _inverse_norms(self, arrays: dict[str, Array]) -> dict[str, Float[Array, ""]]:
        """1/|w| of every array by name, with q, k and v together where `form` says so; 0 where w = 0."""
        names = {name: QKV.sub(r".attn.qkv\1", name) if self.form == "norms_qkv" else name for name in arrays}
        squares: dict[str, Array] = dict.fromkeys(names.values(), jnp.zeros(()))
        for name, w in arrays.items():
            squares[names[name]] += jnp.sum(w**2)
        inverse = {
            name: jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)
            for name, square in squares.items()
        }
        return {name: inverse[names[name]] for name in arrays}

    def decay_term(self, params: Params) -> Params:
        """The term that is added to the gradient (or to the direction): decay factor times array."""
        return jax.tree.map(jnp.multiply, self.decay_factors(params), params)


class Descent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the optimisers: p <- p - lr * factor(t) * direction, with the direction given by the subclass."""

    fused: ClassVar[bool]
    """Whether the compiled kernel takes its whole step: see `update_by`."""

    lr: Traced
    schedule: LearningRate = Constant()
    decay: WeightDecay | None = None

    @property
    def moments(self) -> int:
        """Number of values that are stored for every parameter between steps."""
        raise NotImplementedError

    def direction(self) -> optax.GradientTransformation:
        """The optax transformation from gradients to the direction of ascent."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `InputError` unless the learning rate is positive and the decay coefficient is not negative."""
        require(self.lr > 0, "optimizer.lr", self.lr, "must be larger than 0")
        if self.decay is not None:
            self.decay.check()

    def init(self, params: Params) -> OptState:
        """The optimiser state before the first step."""
        return self.direction().init(params)

    def update_by(
        self, kernel: Kernel, state: OptState, params: Params, prompt: AnyPrompt, step: UInt[Array, ""], total: int
    ) -> tuple[Float[Array, ""], Params, OptState]:
        """The loss, and what `update` makes of its gradient, all by the compiled kernel; where `fused` only."""
        raise NotImplementedError

    def update(
        self, grads: Params, state: OptState, params: Params, step: UInt[Array, ""], total: int
    ) -> tuple[Params, OptState]:
        """The parameters and optimiser state after one step; `total` is the length of the run in steps, for schedules
        that need it."""
        decay_term = None if self.decay is None else self.decay.decay_term(params)
        late = self.decay is not None and self.decay.form == "decoupled"
        if decay_term is not None and not late:
            grads = jax.tree.map(jnp.add, grads, decay_term)
        direction, state = self.direction().update(grads, state)
        if decay_term is not None and late:
            direction = jax.tree.map(jnp.add, direction, decay_term)
        rate = self.lr * self.schedule.factor(step, total)
        return jax.tree.map(lambda p, u: p - rate * u, params, direction), state


class Adam(Descent, frozen=True, tag="adam", forbid_unknown_fields=True, kw_only=True):
    """Adam (Kingma & Ba 2015) with bias correction: the direction is m / (sqrt(v) + eps).

    Args:
        lr: the learning rate; a traced field, so it may differ between members.
        schedule: the factor of the learning rate over training.
        decay: weight decay; None: none.
        b1: decay rate of the first moment m, per step.
        b2: decay rate of the second moment v, per step.
        eps: added to sqrt(v).

    >>> eb.Adam(lr=3e-4).b2
    0.999
    """

    fused: ClassVar[bool] = True

    lr: Traced = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Annotated[float, msgspec.Meta(gt=0)] = 1e-8

    @property
    def moments(self) -> int:
        """The running means of the gradient and of its square."""
        return 2

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def update_by(
        self, kernel: Kernel, state: OptState, params: Params, prompt: AnyPrompt, step: UInt[Array, ""], total: int
    ) -> tuple[Float[Array, ""], Params, OptState]:
        """The loss, and the parameters and state after one step, all computed by the compiled kernel."""
        count = state.count + 1
        corrections = [1 - jnp.float32(b) ** count for b in (self.b1, self.b2)]
        rate = self.lr * self.schedule.factor(step, total)
        numbers = jnp.stack([jnp.float32(x) for x in (rate, *corrections, self.b1, self.b2, self.eps)])
        decay_factors = (self.decay or WeightDecay()).decay_factors(params)
        late = self.decay is not None and self.decay.form == "decoupled"
        loss, params, mu, nu = kernel.step(params, state.mu, state.nu, prompt, numbers, decay_factors, late)
        return loss, params, optax.ScaleByAdamState(count, mu, nu)


class SGD(Descent, frozen=True, tag="sgd", forbid_unknown_fields=True, kw_only=True):
    """Stochastic gradient descent with heavy-ball momentum: direction m <- momentum * m + g.

    Args:
        lr: the learning rate; a traced field, so it may differ between members.
        schedule: the factor of the learning rate over training.
        decay: weight decay; None: none.
        momentum: from 0 (none) to below 1.

    >>> eb.SGD(lr=0.1, momentum=0.9).lr
    0.1
    """

    fused: ClassVar[bool] = False

    lr: Traced = 1e-2
    momentum: Fraction = 0.0

    @property
    def moments(self) -> int:
        """The running sum of gradients, where there is momentum."""
        return 1 if self.momentum else 0

    def direction(self) -> optax.GradientTransformation:
        return optax.trace(self.momentum) if self.momentum else optax.identity()
