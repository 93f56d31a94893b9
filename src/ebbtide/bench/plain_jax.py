"""The same model as a first implementation in JAX would have it: one compiled step per call.

A function of one sequence under `vmap`, activations batch-major, layers unrolled, the prompt drawn on the host for
every step, optax Adam, no donated buffers: the manner of the public code, written anew. To be fair to it, it reads out
the query's position only, which that code does not.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ebbtide.bench.configs import plain_transformer
from ebbtide.bench.prompts import Batch, HostSampler
from ebbtide.training.spec import Spec

Weights = dict[str, Any]


def weights(spec: Spec, seed: int = 0) -> Weights:
    """Random weights, every matrix [out, in]."""
    random, model, sizes = np.random.default_rng(seed), plain_transformer(spec), spec.source.sizes()
    d, hidden, outputs = model.width, model.width * model.mlp_ratio, spec.outputs()

    def linear(fan_in: int, fan_out: int, bias: bool = True) -> Weights:
        w = jnp.asarray(random.standard_normal((fan_out, fan_in), np.float32) / np.sqrt(fan_in))
        return {"w": w, "b": jnp.zeros(fan_out)} if bias else {"w": w}

    def norm() -> Weights:
        return {"scale": jnp.ones(d), "offset": jnp.zeros(d)}

    def block() -> Weights:
        params = {"norm1": norm()} | {name: linear(d, d, bias=model.attention_bias) for name in ("q", "k", "v", "o")}
        if hidden:
            params |= {"norm2": norm(), "w_in": linear(d, hidden), "w_out": linear(hidden, d)}
        return params

    return {
        "exemplar": linear(sizes.dim, d),
        "label": jnp.asarray(0.02 * random.standard_normal((outputs, d), np.float32)),
        "position": jnp.asarray(0.1 * random.standard_normal((2 * spec.task.context + 1, d), np.float32)),
        "blocks": [block() for _ in range(model.layers)],
        "norm": norm(),
        "readout": linear(d, outputs),
    }


def _linear(w: Weights, x: Float[Array, " d_in"]) -> Float[Array, " d_out"]:
    y = w["w"] @ x
    return y + w["b"] if "b" in w else y


def _norm(w: Weights, x: Float[Array, " d"]) -> Float[Array, " d"]:
    centred = x - x.mean()
    return centred / jnp.sqrt((centred**2).mean() + 1e-5) * w["scale"] + w["offset"]


def _attention(block: Weights, x: Float[Array, "tokens d"], heads: int) -> Float[Array, "tokens d"]:
    tokens, d = x.shape
    q, k, v = (jax.vmap(lambda t, n=n: _linear(block[n], t))(x).reshape(tokens, heads, d // heads) for n in "qkv")
    scores = jnp.einsum("thk,shk->hts", q, k) / jnp.sqrt(d // heads)
    scores = jnp.where(jnp.tril(jnp.ones((tokens, tokens), bool)), scores, -jnp.inf)
    mixed = jnp.einsum("hts,shk->thk", jax.nn.softmax(scores), v).reshape(tokens, d)
    return jax.vmap(lambda t: _linear(block["o"], t))(mixed)


def logits(
    w: Weights, exemplars: Float[Array, "slots dim"], labels: Int[Array, " context"], heads: int
) -> Float[Array, " labels"]:
    """Logits of the query of one sequence."""
    e, known = jax.vmap(lambda t: _linear(w["exemplar"], t))(exemplars), w["label"][labels]
    pairs = jnp.stack([e[:-1], known], axis=1).reshape(-1, e.shape[1])
    x = jnp.concatenate([pairs, e[-1:]]) + w["position"]
    for block in w["blocks"]:
        x = x + _attention(block, jax.vmap(lambda t, b=block: _norm(b["norm1"], t))(x), heads)
        if "w_in" in block:
            x = x + jax.vmap(lambda t, b=block: _mlp(b, t))(x)
    return _linear(w["readout"], _norm(w["norm"], x[-1]))


def _mlp(block: Weights, x: Float[Array, " d"]) -> Float[Array, " d"]:
    return _linear(block["w_out"], jax.nn.gelu(_linear(block["w_in"], _norm(block["norm2"], x))))


def loss(w: Weights, batch: Batch, heads: int) -> Float[Array, ""]:
    """Mean cross-entropy of the query's label (nats)."""
    out = jax.vmap(lambda e, known: logits(w, e, known, heads))(batch.exemplars, batch.labels)
    return optax.softmax_cross_entropy_with_integer_labels(out, batch.target).mean()


class PlainJax:
    """An implementation that trains one step per call."""

    note = "batch drawn by NumPy for every step"

    def __init__(self, spec: Spec):
        self.sampler, self.weights = HostSampler(spec), weights(spec)
        optimizer = optax.adam(spec.optimizer.lr)
        self.moments = optimizer.init(self.weights)

        def step(w: Weights, moments: Any, batch: Batch) -> tuple[Weights, Any, Array]:
            value, grads = jax.value_and_grad(loss)(w, batch, plain_transformer(spec).heads)
            updates, moments = optimizer.update(grads, moments, w)
            return optax.apply_updates(w, updates), moments, value  # pyright: ignore[reportReturnType]

        self.step: Callable[..., Any] = jax.jit(step)

    def train(self, steps: int) -> None:
        """Trains for `steps` optimiser steps."""
        for _ in range(steps):
            self.weights, self.moments, _ = self.step(self.weights, self.moments, self.sampler.draw())
        jax.block_until_ready(self.weights)
