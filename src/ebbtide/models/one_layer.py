"""One head of softmax attention and a ReLU MLP with fixed read-out signs: a model whose training is analysed."""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require
from ebbtide.models.model import AnyPrompt, Model, Pairing, Params, Tap, untouched
from ebbtide.tasks.prompt import FunctionPrompt


class OneLayer(Model, frozen=True, tag="one_layer", forbid_unknown_fields=True):
    r"""The model of Li et al. (2024, arXiv 2402.15607): over tokens $p_i = [x_i; y_i]$, and $p_q = [x_q; 0]$ for the
    query,

    $$F = a' \, \mathrm{ReLU}\Big(W_O \sum_i W_V p_i \, \mathrm{softmax}_i \big((W_K p_i)' W_Q p_q\big)\Big),$$

    one score, whose sign is the answer. The sum is over the pairs; there is no residual stream, no norm, no position
    and no 1/sqrt(k). Trained are $W_Q, W_K, W_V$, which begin as $\delta I$, and $W_O$, whose entries begin as
    $N(0, \xi^2)$. The read-out a is fixed, by turns +1/sqrt(m) and -1/sqrt(m).

    A response is one coordinate of a token; the paper's embedding of a label is a vector of a fixed direction, of which
    only the norm matters here. With the norm in the responses it belongs to the data (`PatternPairs.label_norm`).

    It is a model of its own and no option of the transformer: without residual stream and read-out there is hardly a
    part that the two have in common.

    Args:
        units: the number m of units of the MLP.
        scale: $\delta$, the initial value on the diagonals of queries, keys and values.
        noise: $\xi$, the standard deviation of the entries of $W_O$ at first.

    >>> eb.OneLayer(units=60).parameters(context=20, dim=30, labels=0)
    4743
    """

    pairing: ClassVar[Pairing] = "joint"
    """The response of the query alone is predicted, as by transformers over joint tokens."""

    units: Annotated[int, msgspec.Meta(ge=2)] = 60
    scale: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    noise: Annotated[float, msgspec.Meta(gt=0)] = 0.05

    def tokens(self, context: int) -> int:
        """Number of tokens: the pairs and the query."""
        return context + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Matrices for inputs of `dim` features. Raises `InputError` unless responses are real numbers or signs."""
        require(labels == 0, "model", "one_layer", "answers with one score: it needs a task of real responses or signs")
        square = {name: self.scale * jnp.eye(dim + 1) for name in "qkv"}
        return square | {"o": self.noise * jax.random.normal(key, (self.units, dim + 1))}

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "1 batch 1"]:
        """The score of the query."""
        assert isinstance(prompt, FunctionPrompt)
        pairs = jnp.concatenate([prompt.inputs[:-1], prompt.responses[:-1, :, None]], axis=2)
        query = prompt.inputs[-1] @ params["q"][:, :-1].T
        scores = jnp.einsum("sbd,bd->bs", pairs, query @ params["k"])
        scores = tap("hook_attn_scores", jnp.where(prompt.present.T, scores, -1e20))
        pattern = tap("hook_pattern", jax.nn.softmax(scores, axis=-1))
        attended = tap("hook_z", jnp.einsum("bs,sbd->bd", pattern, pairs) @ params["v"].T)
        hidden = tap("mlp.hook_post", jax.nn.relu(attended @ params["o"].T))
        return tap("hook_logits", hidden @ self.readout())[None, :, None]

    def readout(self) -> Float[Array, " units"]:
        """The fixed read-out a: +1/sqrt(m) and -1/sqrt(m) by turns."""
        return jnp.where(jnp.arange(self.units) % 2, -1.0, 1.0) / self.units**0.5

    def stored_values(self, tokens: int) -> int:
        """Number of values that are stored of one sequence, at least."""
        return tokens + self.units
