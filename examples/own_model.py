r"""A model of your own: one step of preconditioned gradient descent. `examples/own_theory.py` tests a theory of it.

On pairs (x_i, y_i) and a query q it answers $q^T P \frac{1}{n} \sum_i y_i x_i$ with a learned matrix P: what one layer
of linear self-attention can compute (von Oswald et al. 2023, arXiv 2212.07677; Ahn et al. 2023, arXiv 2306.00297).
"""

from typing import ClassVar

import jax.numpy as jnp

from ebbtide.models.model import Model, untouched


class OneStep(Model, frozen=True):
    r"""$q^T P \frac{1}{n} \sum_i y_i x_i$, for regression on real responses. It starts with P = `start` I."""

    pairing: ClassVar = "joint"
    """It answers the query alone, from all pairs."""

    start: float = 0.0

    def init(self, key, *, context, dim, labels):
        return {"step": self.start * jnp.eye(dim)}

    def apply(self, params, prompt, tap=untouched):
        x, y = prompt.inputs[:-1], prompt.responses[:-1] * prompt.present
        weights = tap("hook_weights", jnp.einsum("tbd,tb->bd", x, y) / x.shape[0])
        answer = jnp.einsum("bd,de,be->b", prompt.inputs[-1], params["step"], weights)
        return answer[None, :, None]
