"""Optimisers: thin, typed fronts of optax whose learning rate may differ between members."""

from typing import Annotated, Any

import jax
import msgspec
import optax
from jaxtyping import Array, UInt

from ebbtide.errors import require
from ebbtide.models.transformer import Params
from ebbtide.traced import Traced
from ebbtide.training.schedule import Constant, LearningRate

Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
OptState = Any


class Descent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """p <- p - lr * factor(t) * direction; subclasses give the direction."""

    lr: Traced
    schedule: LearningRate = Constant()

    def direction(self) -> optax.GradientTransformation:
        """From gradients to the direction of ascent, with its state."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `InputError` unless the learning rate is positive."""
        require(self.lr > 0, "optimizer.lr", self.lr, "must be larger than 0")

    def init(self, params: Params) -> OptState:
        """The state before the first step."""
        return self.direction().init(params)

    def update(
        self, grads: Params, state: OptState, params: Params, step: UInt[Array, ""], total: int
    ) -> tuple[Params, OptState]:
        """One step; `total` is the length of the run in steps (schedules that need it)."""
        direction, state = self.direction().update(grads, state)
        rate = self.lr * self.schedule.factor(step, total)
        return jax.tree.map(lambda p, u: p - rate * u, params, direction), state


class Adam(Descent, frozen=True, tag="adam", forbid_unknown_fields=True, kw_only=True):
    """Adam (Kingma & Ba 2015) with bias correction: the direction is m / (sqrt(v) + eps)."""

    lr: Traced = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Annotated[float, msgspec.Meta(gt=0)] = 1e-8

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


class SGD(Descent, frozen=True, tag="sgd", forbid_unknown_fields=True, kw_only=True):
    """Stochastic gradient descent with heavy-ball momentum: the direction is m <- momentum * m + g."""

    lr: Traced = 1e-2
    momentum: Fraction = 0.0

    def direction(self) -> optax.GradientTransformation:
        return optax.trace(self.momentum) if self.momentum else optax.identity()


Optimizer = Adam | SGD
