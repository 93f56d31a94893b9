"""The compiled kernel seen from JAX: which specs it serves, and its two calls."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt
from optax import ScaleByAdamState

from ebbtide.models.encoders import Linear
from ebbtide.models.model import Model, Params, Shape
from ebbtide.models.positions import Learned, NoPositions, Rotary, Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.prompt import Prompt
from ebbtide.training.optimizer import Adam, Optimizer

LARGEST = 12_800
"""The most labels that are tried and tested."""


def why_not(model: Model, task: Any, labels: int) -> str | None:
    """What of a model or task the kernel does not serve; None: it serves them."""
    if not isinstance(task, FewShot):
        return "only few-shot sequences are served"
    if not isinstance(model, Transformer):
        return "only transformers are served"
    size = model.width // model.heads
    reasons = {
        "the width and the size of a head must be multiples of 8": model.width % 8 or size % 8,
        "only a linear encoder is served": not isinstance(model.encoder, Linear),
        "attention has biases": model.attention_bias,
        "only causal softmax attention is served": model.attention != "softmax" or model.mask != "causal",
        "a norm after the layer is not served": model.norm == "post",
        "only GELU is served": model.activation != "gelu" and model.mlp_ratio,
        "these positions are not served": not isinstance(model.positions, Learned | Sinusoidal | Rotary | NoPositions),
        f"more than {LARGEST:,} labels": labels > LARGEST,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@lru_cache(maxsize=1)
def register(library: Path) -> None:
    """Loads the library and names its two calls to XLA. Raises `OSError` when it cannot be loaded."""
    loaded = ctypes.CDLL(str(library))
    for name, symbol in (("ebbtide_gradients", "EbbtideGradients"), ("ebbtide_step", "EbbtideStep")):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(loaded, symbol)), platform="cpu")


class Kernel:
    """The calls for one model; `labels` is the number of its outputs. Needs `register`."""

    def __init__(self, model: Transformer, *, context: int, dim: int, labels: int):
        self.model = model
        made = jax.eval_shape(lambda key: model.init(key, context=context, dim=dim, labels=labels), jax.random.key(0))
        paths, self._tree = jax.tree_util.tree_flatten_with_path(made)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
        self._order = [names.index(name) for name in self._names() if name in names]
        assert len(self._order) == len(names), names
        tokens = model.tokens(context)
        half = model.width // model.heads // 2
        positions = model.positions
        self._table, self._turns = jnp.zeros((tokens, model.width)), jnp.zeros((tokens, half, 2))
        if not isinstance(positions, Learned):
            self._table = positions.add({}, self._table[:, None, :])[:, 0]
        if isinstance(positions, Rotary):  # of (1, 0) at every place: its cosine and sine
            one = jnp.tile(jnp.asarray([1.0, 0.0]), (tokens, 1, 1, half))
            self._turns = positions.rotate(one, tokens - 1).reshape(tokens, half, 2)
        flags = (model.pairing == "joint", model.norm == "pre", isinstance(positions, Learned), isinstance(positions, Rotary))
        self._words = {
            "layers": model.layers,
            "heads": model.heads,
            "hidden": model.width * model.mlp_ratio,
            "flags": sum(flag << i for i, flag in enumerate(flags)),
        }

    @classmethod
    def of(cls, model: Model, **shape: Unpack[Shape]) -> "Kernel":
        """The calls for a model that `why_not` allows."""
        assert isinstance(model, Transformer)
        return cls(model, **shape)

    def _names(self) -> list[str]:
        """The arrays in the order of `leaves_of` in model.h."""
        names = ["exemplar.w", "exemplar.b", "label.table", "position.table"]
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

    def _prompt(self, prompt: Prompt) -> list[Array]:
        whole = (prompt.exemplars, prompt.labels.astype(jnp.int32), prompt.target.astype(jnp.int32))
        return [self._table, self._turns, *whole]

    def loss_and_grad(self, params: Params, prompt: Prompt) -> tuple[Float[Array, ""], Params]:
        """As `Model.loss_and_grad`."""
        flat = self._flat(params)
        shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in flat] + [jax.ShapeDtypeStruct((), jnp.float32)]
        call = jax.ffi.ffi_call("ebbtide_gradients", shapes, vmap_method="sequential")
        *grads, loss = call(*flat, *self._prompt(prompt), **self._words)
        return loss, self._tree_of(grads)

    def step(
        self,
        optimizer: Adam,
        params: Params,
        state: ScaleByAdamState,
        prompt: Prompt,
        step: UInt[Array, ""],
        total: int,
    ) -> tuple[Float[Array, ""], Params, ScaleByAdamState]:
        """The loss, and what `Adam.update` makes of its gradient: (loss, parameters, optimiser state)."""
        flat = self._flat(params)
        count = state.count + 1
        corrections = [1 - jnp.float32(b) ** count for b in (optimizer.b1, optimizer.b2)]
        rate = optimizer.lr * optimizer.schedule.factor(step, total)
        numbers = jnp.stack([jnp.asarray(x, jnp.float32) for x in (rate, *corrections, optimizer.b1, optimizer.b2, optimizer.eps)])
        decay = optimizer.decay
        pulls = jnp.zeros(len(flat)) if decay is None else jnp.stack(self._flat(decay.pulls(params)))
        whole = [*flat, *self._flat(state.mu), *self._flat(state.nu)]
        shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in whole] + [jax.ShapeDtypeStruct((), jnp.float32)]
        call = jax.ffi.ffi_call(
            "ebbtide_step", shapes, vmap_method="sequential", input_output_aliases={i: i for i in range(len(whole))}
        )
        late = decay is not None and decay.form == "decoupled"
        *made, loss = call(*whole, *self._prompt(prompt), numbers, pulls, **self._words, decoupled=late)
        n = len(flat)
        after, mu, nu = (self._tree_of(made[i * n : (i + 1) * n]) for i in range(3))
        return loss, after, ScaleByAdamState(count, mu, nu)

