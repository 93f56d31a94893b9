"""Gaussian mixtures whose classes have one covariance in common, for classification in context."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import SeededSource, Sizes, array_bytes


class MixtureBank(NamedTuple):
    r"""Square roots $\Lambda^{1/2}$ (symmetric): `root` of the covariance of training, `other` of a second one with the
    same eigenvalues in another basis."""

    root: Float[Array, "dim dim"]
    other: Float[Array, "dim dim"]


class Mixtures(SeededSource, frozen=True, tag="mixtures", forbid_unknown_fields=True):
    r"""Mixtures of `classes` equally likely Gaussians $N(\mu_k, \Lambda)$ in `dim` dimensions. Every prompt has means
    of its own; $\Lambda$ is drawn once, from the seed (the setting of Shen et al. 2024, arXiv 2410.11778; from memory).

    The eigenvalues of $\Lambda$ are evenly spaced on a logarithmic scale, with geometric mean 1, in a random basis.

    Args:
        dim: the number d of features of an input.
        classes: the number c of classes, which are the labels.
        spread: the largest eigenvalue of $\Lambda$ divided by the smallest; 1: $\Lambda = I$.
        seed: the seed of the covariance.

    >>> bank = eb.Mixtures(dim=3, spread=4.0).build()
    >>> np.linalg.eigvalsh(bank.root @ bank.root).round(2).tolist()
    [0.5, 1.0, 2.0]
    """

    dim: Annotated[int, msgspec.Meta(ge=1)] = 4
    classes: Annotated[int, msgspec.Meta(ge=2)] = 2
    spread: Annotated[float, msgspec.Meta(ge=1)] = 4.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return MixtureBank

    def check(self) -> None:
        """Does nothing: all sizes are compatible."""

    def sizes(self) -> Sizes:
        """Numbers of classes and features: the two covariances are classes with one exemplar each."""
        return Sizes(2, 0, 1, 0, self.dim)

    def bank_bytes(self) -> int:
        """Bytes of the two covariances."""
        return self.dim * array_bytes(self.sizes())

    def building_bytes(self) -> int:
        return 0

    def build(self) -> MixtureBank:
        """The two covariances, drawn from `seed`."""
        return MixtureBank(*jax.vmap(self._draw_root)(jax.random.split(root(self.seed, Purpose.SOURCE))))

    def _draw_root(self, key: Key[Array, ""]) -> Float[Array, "dim dim"]:
        basis = jnp.linalg.qr(jax.random.normal(key, (self.dim, self.dim)))[0]
        return basis * self.spread ** (0.5 * jnp.linspace(-0.5, 0.5, self.dim)) @ basis.T

    def look_up(
        self, bank: MixtureBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim dim"]:
        """Square roots of the covariances with the numbers `classes`: 0 of training, 1 of the other one."""
        return jnp.stack(bank)[classes]
