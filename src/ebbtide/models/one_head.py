"""One head of attention over joined pairs, then an MLP that reads the query: the minimal model of ICL against IWL."""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require
from ebbtide.models.layers import EPSILON, init_norm
from ebbtide.models.model import AnyPrompt, Model, Pairing, Params, Tap, untouched
from ebbtide.tasks.prompt import FunctionPrompt


class OneHead(Model, frozen=True, tag="one_head", forbid_unknown_fields=True):
    r"""The model of Nguyen & Reddy (2024, arXiv 2412.00104). Over tokens $t_i = \mathrm{LN}([x_i; y_i])$ with one-hot
    labels of two, and $t_q = \mathrm{LN}([x_q; 0])$ for the query, the score of label 1 against label 0 is

    $$\phi = \mathrm{MLP}\Big(t_q + \sum_i W_V t_i \, \mathrm{softmax}_i \big((W_K t_i)' W_Q t_q\big)\Big),$$

    an MLP of two hidden layers of ReLU. The sum is over the pairs and the query itself. There are no positions, no
    biases in the attention and no 1/sqrt(d). All weights and biases begin uniform in $\pm 1/\sqrt{\text{fan-in}}$, the
    default of PyTorch, as in the public code.

    It is a model of its own and no option of the transformer: an exemplar and its label are coordinates of one token,
    which is as wide as the two together, and the read-out is the MLP itself.

    The norm of the tokens stands with the attention (`blocks.0.attn.norm`), so that `WeightDecay` on the attention
    decays what the public code decays: queries, keys, values and this norm.

    Args:
        hidden: the number of units of each of the two hidden layers.

    >>> eb.OneHead().parameters(context=100, dim=63, labels=2)
    309766
    """

    pairing: ClassVar[Pairing] = "joint"
    """The label of the query alone is predicted, as by transformers over joint tokens."""

    hidden: Annotated[int, msgspec.Meta(ge=1)] = 512

    def tokens(self, context: int) -> int:
        """Number of tokens: the pairs and the query."""
        return context + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """Parameters for exemplars of `dim` features. Raises `InputError` unless there are two labels."""
        require(labels == 2, "model", "one_head", "answers with one score: it needs two labels, and no reserved ones")
        width, keys = dim + 2, iter(jax.random.split(key, 9))

        def uniform(fan_in: int, *shape: int) -> Float[Array, "..."]:
            edge = fan_in**-0.5
            return jax.random.uniform(next(keys), shape, minval=-edge, maxval=edge)

        attention = {name: uniform(width, width, width) for name in "qkv"} | {"norm": init_norm(width)}
        sizes = {"1": (width, self.hidden), "2": (self.hidden, self.hidden), "3": (self.hidden, 1)}
        mlp = {f"w{name}": uniform(rows, rows, columns) for name, (rows, columns) in sizes.items()}
        mlp |= {f"b{name}": uniform(rows, columns) for name, (rows, columns) in sizes.items()}
        return {"blocks": [{"attn": attention, "mlp": mlp}]}

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "*predicted batch labels"]:
        """Logits (0, score) of the query's label [batch, 2]; for functions [1, batch, 2]."""
        functions = isinstance(prompt, FunctionPrompt)
        inputs, labels = (prompt.inputs, prompt.responses[:-1]) if functions else (prompt.exemplars, prompt.labels)
        block = params["blocks"][0]
        attention, mlp = block["attn"], block["mlp"]
        scale, offset = attention["norm"]["scale"], attention["norm"]["offset"]
        normed = self._standardise(inputs, labels)  # data: the trained scale and offset of the norm come after the sums
        query = normed[:, -1] * scale + offset
        read = query @ attention["q"] @ attention["k"].T
        scores = jnp.einsum("bsd,bd->bs", normed, scale * read) + (read @ offset)[:, None]
        pattern = tap("hook_pattern", jax.nn.softmax(tap("hook_attn_scores", scores), axis=-1))
        mixed = jnp.einsum("bs,bsd->bd", pattern, normed) * scale + offset
        x = tap("hook_resid_mid", query + tap("hook_z", mixed @ attention["v"]))
        for layer in "12":
            x = tap(f"mlp.{layer}.hook_post", jax.nn.relu(x @ mlp[f"w{layer}"] + mlp[f"b{layer}"]))
        score = x @ mlp["w3"] + mlp["b3"]
        logits = tap("hook_logits", jnp.concatenate([jnp.zeros_like(score), score], axis=-1))
        return logits[None] if functions else logits

    @staticmethod
    def _standardise(inputs: Float[Array, "slots batch dim"], labels: Array) -> Float[Array, "batch slots width"]:
        """The tokens [x; one-hot label], the query's with 0 in place of its label, with mean 0 and variance 1 each."""
        own = jax.nn.one_hot(jnp.pad(labels, ((0, 1), (0, 0)), constant_values=-1), 2, dtype=inputs.dtype)
        tokens = jnp.concatenate([inputs, own], axis=-1).transpose(1, 0, 2)
        centred = tokens - tokens.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON)

    def stored_values(self, tokens: int) -> int:
        """Number of values that are stored of one sequence, at least."""
        return tokens + 2 * self.hidden
