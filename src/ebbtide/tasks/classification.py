"""The task of classification in context: pairs (x, y) of one Gaussian mixture, then a query input."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.mixtures import MixtureBank, Mixtures
from ebbtide.tasks.prompt import FunctionPrompt, function_prompts
from ebbtide.tasks.task import FunctionTask, check_pairs
from ebbtide.traced import kind_name


class Classification(FunctionTask, frozen=True, tag="classification", forbid_unknown_fields=True):
    r"""Sequences of `context` pairs and a query, with labels $y_t$ uniform on c classes and $x_t \sim N(\mu_{y_t},
    \Lambda)$. The means are drawn for the prompt: $\mu_0 \sim N(0, I)$, and for the other classes $\mu_k =
    \Lambda^{1/2} U_k \Lambda^{-1/2} \mu_0$ with $U_k$ random and orthogonal, so that all $\mu_k' \Lambda^{-1} \mu_k$
    are equal (Shen et al. 2024, arXiv 2410.11778; from memory). Then the optimal logits are linear in the query,
    $\mu_k' \Lambda^{-1} x$, without an intercept.

    Args:
        context: the number of pairs before the query.
        shift: how an evaluator's prompts differ from training's. "norms": the means have norms of their own, $\mu_k =
            \Lambda^{1/2} U_k \Lambda^{-1/2} \nu_k$ with $\nu_k \sim N(0, I)$, so that the optimal logits have
            intercepts; "covariance": $\Lambda$ is the source's other covariance, also in the rule for the means.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `latent` has the means [batch,
    classes, dim] and the covariance [batch, dim, dim].

    >>> task, source = eb.Classification(context=6), eb.Mixtures(dim=2, classes=3)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.inputs.shape, prompt.responses.dtype, prompt.latent["means"].shape
    ((7, 5, 2), dtype('int32'), (5, 3, 2))
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 40
    shift: Literal["none", "norms", "covariance"] = "none"

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Mixtures`."""
        tag = kind_name(source)
        require(isinstance(source, Mixtures), "source", tag, "must be mixtures for the task classification")

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` for a model over states."""
        check_pairs(pairing)

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "norms", "covariance")

    def variant(self, name: str) -> "Classification":
        """The task of the evaluator `name`: `train` (prompts as in training), or a shift."""
        return self if name == "train" else replace(self, shift=name)

    def outputs(self, source: SourceLike) -> int:
        """Number of classes."""
        assert isinstance(source, Mixtures)
        return source.classes

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: MixtureBank, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        assert isinstance(source, Mixtures)
        return function_prompts(lambda own: self._one(own, source, bank), key, index)

    def _one(
        self, key: Key[Array, ""], source: Mixtures, bank: MixtureBank
    ) -> tuple[Float[Array, "slots dim"], Int[Array, " slots"], Array, dict[str, Array]]:
        means_key, direction_key, label_key, noise_key = jax.random.split(key, 4)
        root = bank.other if self.shift == "covariance" else bank.root
        norms = source.classes if self.shift == "norms" else 1
        drawn = jax.random.normal(means_key, (norms, source.dim))
        radius = jnp.linalg.norm(jnp.linalg.solve(root, drawn.T), axis=0)
        direction = jax.random.normal(direction_key, (source.classes, source.dim))
        direction = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
        means = (radius[:, None] * direction) @ root
        labels = jax.random.randint(label_key, (self.context + 1,), 0, source.classes)
        noise = jax.random.normal(noise_key, (self.context + 1, source.dim)) @ root
        latent = {"means": means, "covariance": root @ root}
        return means[labels] + noise, labels, jnp.ones(self.context, bool), latent
