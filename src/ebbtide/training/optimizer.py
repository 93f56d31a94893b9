"""Optimisers: thin, typed fronts of optax whose learning rate may differ between members."""

from typing import Annotated, Any

import jax
import msgspec
import optax
from jaxtyping import Array, Float, UInt

from ebbtide.errors import require
from ebbtide.models.transformer import Params
from ebbtide.traced import Traced
from ebbtide.training.schedule import Constant, LearningRate

Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
OptState = Any


def _descend(params: Params, direction: Params, rate: Float[Array, ""]) -> Params:
    return jax.tree.map(lambda p, u: p - rate * u, params, direction)


class Adam(msgspec.Struct, frozen=True, tag="adam", forbid_unknown_fields=True):
    """Adam (Kingma & Ba 2015) with bias correction: p <- p - lr * factor(t) * m / (sqrt(v) + eps)."""

    lr: Traced = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Annotated[float, msgspec.Meta(gt=0)] = 1e-8
    schedule: LearningRate = Constant()

    def check(self) -> None:
        require(self.lr > 0, "optimizer.lr", self.lr, "must be larger than 0")

    def init(self, params: Params) -> OptState:
        return self._transform().init(params)

    def update(
        self, grads: Params, state: OptState, params: Params, step: UInt[Array, ""], total: int
    ) -> tuple[Params, OptState]:
        """One step; `total` is the length of the run in steps (schedules that need it)."""
        direction, state = self._transform().update(grads, state)
        return _descend(params, direction, self.lr * self.schedule.factor(step, total)), state

    def _transform(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


class SGD(msgspec.Struct, frozen=True, tag="sgd", forbid_unknown_fields=True):
    """Stochastic gradient descent with heavy-ball momentum: m <- momentum * m + g, p <- p - lr * m."""

    lr: Traced = 1e-2
    momentum: Fraction = 0.0
    schedule: LearningRate = Constant()

    def check(self) -> None:
        require(self.lr > 0, "optimizer.lr", self.lr, "must be larger than 0")

    def init(self, params: Params) -> OptState:
        return self._transform().init(params)

    def update(
        self, grads: Params, state: OptState, params: Params, step: UInt[Array, ""], total: int
    ) -> tuple[Params, OptState]:
        """One step; `total` is the length of the run in steps (schedules that need it)."""
        direction, state = self._transform().update(grads, state)
        return _descend(params, direction, self.lr * self.schedule.factor(step, total)), state

    def _transform(self) -> optax.GradientTransformation:
        return optax.trace(self.momentum) if self.momentum else optax.identity()


Optimizer = Adam | SGD
