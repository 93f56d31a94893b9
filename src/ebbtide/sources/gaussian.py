"""Gaussian classes: the default source, which needs no data file."""

from functools import partial
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import FLOAT, Bank, SeededSource, Sizes, array_bytes, check_counts
from ebbtide.traced import Traced

INFINITE = 2**31
"""Exemplars per class of an infinite source: half for training, half held out."""


class Gaussian(SeededSource, frozen=True, tag="gaussian", forbid_unknown_fields=True):
    r"""Classes that are Gaussian clouds (Reddy 2023, arXiv 2312.03002, section 2).

    Class c has mean $\mu_c \sim N(0, I/D)$; its exemplar e is
    $$x_{ce} = s\,(\mu_c + \epsilon\,\eta_{ce}) / \sqrt{1 + \epsilon^2}, \qquad \eta_{ce} \sim N(0, I/D),$$
    with $D$ = `dim` and $\epsilon$ = `noise`.

    Args:
        classes: the number of classes to train on.
        exemplars: the number of exemplars of a class to train on.
        dim: the number of features of an exemplar.
        noise: the standard deviation $\epsilon$ within a class, in units of that between classes; a traced field, so it
            may differ between members.
        scale: "norm": s = 1, an expected squared norm of 1, as in the paper; "coordinate": $s = \sqrt D$, a variance of
            1 for every coordinate.
        infinite: whether every draw is a new exemplar. Exemplar e is a pure function of (seed, class, e) with e below
            2^31, and the first ones equal those of the finite source.
        holdout_classes: the number of held-out classes.
        holdout_exemplars: the number of held-out exemplars of every class.
        seed: the seed of all classes and exemplars.

    >>> eb.Gaussian(classes=100, exemplars=5, dim=8).build().features.shape  # training and held-out classes
    (228, 9, 8)
    """

    classes: int = 1024
    exemplars: int = 4
    dim: int = 64
    noise: Traced = 1.0
    scale: Literal["coordinate", "norm"] = "coordinate"
    infinite: bool = False
    holdout_classes: int = 128
    holdout_exemplars: int = 4
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return Bank

    def check(self) -> None:
        """Raises `InputError` for sizes that no task could use."""
        check_counts(self)
        require(self.dim >= 1, "source.dim", self.dim, "must be at least 1")
        require(self.noise >= 0, "source.noise", self.noise, "must be 0 or larger")

    def sizes(self) -> Sizes:
        if self.infinite:
            return Sizes(self.classes, self.holdout_classes, INFINITE, INFINITE, self.dim)
        return Sizes(self.classes, self.holdout_classes, self.exemplars, self.holdout_exemplars, self.dim)

    def bank_bytes(self) -> int:
        """Bytes of all exemplars, or, where they are infinitely many, of the class means."""
        return (self.classes + self.holdout_classes) * self.dim * FLOAT if self.infinite else array_bytes(self.sizes())

    def building_bytes(self) -> int:
        return 0

    def build(self) -> Bank:
        """The class means and, unless infinite, every exemplar."""
        return _build(replace(self, seed=0), root(self.seed, Purpose.SOURCE))

    def draw_bank(self, key: Key[Array, ""]) -> Bank:
        """`build` with the root key of another seed; can be compiled."""
        means_key, noise_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        total = self.classes + self.holdout_classes
        means = jax.random.normal(means_key, (total, 1, self.dim)) / jnp.sqrt(self.dim)
        bank = Bank(means, noise_key, jnp.asarray(self.noise, jnp.float32))
        if self.infinite:
            return bank
        each = self.exemplars + self.holdout_exemplars
        classes = jnp.broadcast_to(jnp.arange(total)[:, None], (total, each))
        exemplars = jnp.broadcast_to(jnp.arange(each, dtype=jnp.uint32)[None], (total, each))
        return bank._replace(features=self._draw(bank, classes, exemplars))

    def look_up(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`."""
        return self._draw(bank, classes, exemplars) if self.infinite else bank.features[classes, exemplars]

    def _draw(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        def noise(c: Array, e: Array) -> Array:
            return jax.random.normal(jax.random.fold_in(jax.random.fold_in(bank.key, c), e), (self.dim,))

        eta = jax.vmap(noise)(classes.ravel(), exemplars.ravel()).reshape(*classes.shape, self.dim)
        x = (bank.features[classes, 0] + bank.noise * eta / jnp.sqrt(self.dim)) / jnp.sqrt(1 + bank.noise**2)
        return x * jnp.sqrt(self.dim) if self.scale == "coordinate" else x


@partial(jax.jit, static_argnums=0)
def _build(source: Gaussian, key: Key[Array, ""]) -> Bank:
    """The bank of any seed: one program for all of them."""
    return source.draw_bank(key)
