"""The compiled kernel seen from JAX: which models it serves, and its two calls."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from msgspec import UNSET

from ebbtide.kernel.library import SYMBOLS, load
from ebbtide.models.encoders import Linear
from ebbtide.models.linearized import BiasedSoftmax, Linearized
from ebbtide.models.model import AnyPrompt, Model, Params, Shape
from ebbtide.models.positions import Identical, Learned, Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import Prompt
from ebbtide.user_code import is_own

JOINT, NORMED, LEARNED, ROTARY, EVERY, REAL, OPEN, RECTIFIED, RELU, BY_ROLE, BY_KIND = (2**i for i in range(11))
STATES, COPIED = 2**11, 2**12
"""Flags of a call, as in `Shape` of model.h. EVERY: the response to every input is predicted; REAL: responses are real
numbers."""
MOST_OUTPUTS = 256
"""Largest number of numbers of a state."""
LARGEST = 16_384
"""Largest number of labels: 12,800 classes with a label each, held-out ones and reserved labels."""


def unsupported_reason(model: Model, shape: Shape) -> str | None:
    """Why the kernel does not serve a model of this shape; None where it does."""
    if is_own(type(model)):
        return "a model in a file of the user is not served"
    if not isinstance(model, Transformer):
        return "only transformers are served"
    size = model.width // model.heads
    reasons = {
        "the width and the size of a head must be multiples of 8": model.width % 8 or size % 8,
        "only a linear encoder is served": not isinstance(model.encoder, Linear),
        "attention has biases": model.attention_bias,
        "a read-out of cells is not served": model.readout is not UNSET,
        "whole streams are not served": model.pairing == "whole",
        "linear attention is not served": model.attention == "linear",
        "linearized attention is not served": isinstance(model.attention, Linearized),
        "biases that hold a context are not served": isinstance(model.attention, BiasedSoftmax),
        "a norm after the layer is not served": model.norm == "post",
        f"more than {LARGEST:,} labels": shape["labels"] > LARGEST,
        f"states of more than {MOST_OUTPUTS} numbers": model.pairing == "states"
        and shape["labels"] == 0
        and shape["dim"] > MOST_OUTPUTS,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@lru_cache
def register(library: Path) -> None:
    """Loads the library and registers its two calls with XLA. Raises `BuildError` when it cannot be loaded."""
    loaded = load(library)
    for name, symbol in zip(("ebbtide_gradients", "ebbtide_step"), SYMBOLS, strict=True):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(loaded, symbol)), platform="cpu")


class Kernel:
    """The kernel's calls for one model with `labels` outputs. Needs `register`."""

    def __init__(self, model: Model, *, context: int, dim: int, labels: int):
        assert isinstance(model, Transformer)  # see `unsupported_reason`
        self.model = model
        params = jax.eval_shape(lambda key: model.init(key, context=context, dim=dim, labels=labels), jax.random.key(0))
        paths, self._tree = jax.tree_util.tree_flatten_with_path(params)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
        self._order = [names.index(name) for name in self._names() if name in names]
        assert len(self._order) == len(names), names
        tokens = model.tokens(context)
        half = model.width // model.heads // 2
        positions = model.positions
        self._table, self._turns = jnp.zeros((tokens, model.width)), jnp.zeros((tokens, half, 2))
        drawn = isinstance(positions, Learned | Identical)
        if not drawn:
            self._table = positions.add({}, self._table[:, None, :])[:, 0]
        if isinstance(positions, Rotary):  # of (1, 0) at every place: its cosine and sine
            one = jnp.tile(jnp.asarray([1.0, 0.0]), (tokens, 1, 1, half))
            self._turns = positions.rotate(one, tokens - 1).reshape(tokens, half, 2)
        kinds = positions.kinds if isinstance(positions, Identical) else None
        flags = {
            JOINT: model.pairing == "joint",
            NORMED: model.norm == "pre",
            LEARNED: drawn,
            ROTARY: isinstance(positions, Rotary),
            OPEN: model.mask == "none",
            RECTIFIED: model.attention == "relu",
            RELU: model.activation == "relu",
            BY_ROLE: kinds == "role",
            BY_KIND: kinds == "token",
            STATES: model.pairing == "states",
            COPIED: model.pairing == "copied",
        }
        self._words = {
            "layers": model.layers,
            "heads": model.heads,
            "hidden": model.width * model.mlp_ratio,
            "flags": sum(flag for flag, holds in flags.items() if holds),
        }

    def _names(self) -> list[str]:
        """The names of the parameters, in the order of `leaves_of` in model.h."""
        names = ["exemplar.w", "exemplar.b", "label.table", "copy.w", "copy.b", "position.table"]
        for i in range(self.model.layers):
            parts = ["norm1.scale", "norm1.offset", *(f"attn.{name}" for name in "qkvo"), "norm2.scale", "norm2.offset"]
            parts += [f"mlp.{name}" for name in ("w_in", "b_in", "w_out", "b_out")]
            names += [f"blocks.{i}.{part}" for part in parts]
        return [*names, "norm.scale", "norm.offset", "readout.w", "readout.b"]

    def _flat(self, tree: Any) -> list[Array]:
        leaves = jax.tree.leaves(tree)
        return [leaves[i] for i in self._order]

    def _tree_of(self, arrays: Sequence[Array]) -> Any:
        leaves: list[Any] = [None] * len(arrays)
        for place, array in zip(self._order, arrays, strict=True):
            leaves[place] = array
        return jax.tree_util.tree_unflatten(self._tree, leaves)

    def _prompt(self, prompt: AnyPrompt) -> tuple[list[Array], dict[str, int]]:
        """The arrays of a prompt, and the attributes of the call."""
        kind, responses, present = 0, jnp.zeros(0), jnp.zeros(0)
        if isinstance(prompt, Prompt):
            inputs, labels, target = prompt.exemplars, prompt.labels, prompt.target
        else:
            inputs, target = prompt.inputs, prompt.responses
            if not jnp.issubdtype(target.dtype, jnp.integer):  # a response is so many times the one label there is
                kind, responses, target = REAL, target, jnp.zeros(target.shape[:2], jnp.int32)
            labels = target[:-1]
            if self.model.pairing == "joint":
                target = target[-1]
            else:
                kind += EVERY
            if self.model.mask == "none":
                present = prompt.present.astype(jnp.float32)
        integers = labels.astype(jnp.int32), target.astype(jnp.int32)
        whole = [self._table, self._turns, inputs, *integers, responses, present]
        return whole, self._words | {"flags": self._words["flags"] + kind}

    def loss_and_grad(self, params: Params, prompt: AnyPrompt) -> tuple[Float[Array, ""], Params]:
        """The loss and its gradient, as from `Model.loss_and_grad`."""
        flat = self._flat(params)
        shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in flat] + [jax.ShapeDtypeStruct((), jnp.float32)]
        call = jax.ffi.ffi_call("ebbtide_gradients", shapes)
        arrays, words = self._prompt(prompt)
        *grads, loss = call(*flat, *arrays, **words)
        return loss, self._tree_of(grads)

    def step(
        self,
        params: Params,
        mu: Params,
        nu: Params,
        prompt: AnyPrompt,
        numbers: Float[Array, " 6"],
        decay_factors: Params,
        decoupled: bool,
    ) -> tuple[Float[Array, ""], Params, Params, Params]:
        """(loss, params, mu, nu): the loss, and parameters and moments after one step of Adam, in the memory of the old
        ones.

        `numbers`: learning rate, 1 - b1^t, 1 - b2^t, b1, b2, eps. For every array its decay factor times the array is
        added to its gradient, or to the direction where `decoupled`.
        """
        whole = [*self._flat(params), *self._flat(mu), *self._flat(nu)]
        shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in whole] + [jax.ShapeDtypeStruct((), jnp.float32)]
        same = {i: i for i in range(len(whole))}
        call = jax.ffi.ffi_call("ebbtide_step", shapes, input_output_aliases=same)
        strengths = jnp.stack(self._flat(decay_factors))
        arrays, words = self._prompt(prompt)
        *params, loss = call(*whole, *arrays, numbers, strengths, **words, decoupled=decoupled)
        n = len(whole) // 3
        first, second, third = (self._tree_of(params[i * n : (i + 1) * n]) for i in range(3))
        return loss, first, second, third
