"""Transformer weights constructed from a description: the coordinates of the residual stream that a head compares and
copies, and those that a unit of the MLP reads and writes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ebbtide.errors import require
from ebbtide.models.model import Params
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import FunctionPrompt

Place = slice | int
"""One coordinate of the residual stream, or several adjacent ones."""


class Head(NamedTuple):
    r"""An attention head, on the residual streams $h_i$ of the attending and $h_j$ of the attended token.

    Its score is $s_{ij} = \sum_{(a, b, c)} c\, h_i[a] \cdot h_j[b]$ over `compares`, and for every (from, to, c) of
    `moves`, $h_i[\mathrm{to}] \leftarrow h_i[\mathrm{to}] + \frac1n \sum_j \mathrm{relu}(s_{ij})\, c\,
    h_j[\mathrm{from}]$; softmax attention weighs by $\mathrm{softmax}_j(s_{ij} / \sqrt{k})$, with k the width of a
    head.
    """

    compares: Sequence[tuple[Place, Place, float]]
    moves: Sequence[tuple[Place, Place, float]]


class Unit(NamedTuple):
    """A hidden unit of the MLP: relu(sum of c h[a] over `reads` + bias), added c times to h[b] for each (b, c) of
    `writes`."""

    reads: Sequence[tuple[int, float]]
    bias: float
    writes: Sequence[tuple[int, float]]


class Layer(NamedTuple):
    """One layer: attention, then MLP, both on the residual stream without norms."""

    heads: Sequence[Head] = ()
    units: Sequence[Unit] = ()


class ConstructedModel(NamedTuple):
    """A model with weights, in float64, that compute the described algorithm."""

    model: Transformer
    params: Params

    def answer(
        self, x: Float[np.ndarray, "slots batch dim"], y: Float[np.ndarray, "context batch"]
    ) -> Float[np.ndarray, " batch"]:
        """Predictions for the last input given the pairs before it, in float64. Runs operation by operation, so that
        many layers need no compilation. Raises `InputError` unless there is one response y per pair."""
        pairs = (x.shape[0] - 1, x.shape[1])
        require(y.shape == pairs, "shape of y", list(y.shape), f"must be {list(pairs)}: a response for every pair")
        with jax.enable_x64(True):
            responses = jnp.concatenate([jnp.asarray(y, jnp.float64), jnp.zeros((1, x.shape[1]))])
            prompt = FunctionPrompt(jnp.asarray(x, jnp.float64), responses, jnp.ones(pairs, bool), {})
            return np.asarray(self.model.apply(jax.tree.map(jnp.asarray, self.params), prompt))[-1, :, 0]


def construct_model(
    model: Transformer,
    layers: Sequence[Layer],
    *,
    x: slice,
    y: int,
    marks: Float[np.ndarray, "tokens width"],
    reads: Sequence[tuple[int, float]],
) -> ConstructedModel:
    """The model with the described weights. A pair's token has its input at `x` and its response at `y`, plus its row
    of `marks` (the table of learned positions); `reads` are the coordinates of the last layer's query token that the
    read-out sums.

    Raises `InputError` when a layer has more heads or units than the model, a head compares or moves more coordinates
    than its width, or the model has another number of layers.
    """
    d = model.width
    require(len(layers) == model.layers, "layers", len(layers), f"must be the {model.layers} of the model")
    exemplar, table, readout = np.zeros((x.stop - x.start, d)), np.zeros((1, d)), np.zeros((d, 1))
    exemplar[:, x], table[0, y] = np.eye(len(exemplar)), 1.0
    for place, factor in reads:
        readout[place, 0] += factor
    blocks: list[dict[str, Any]] = []
    for layer in layers:
        block = {"attn": _attention(model, layer.heads)}
        if model.mlp_ratio:
            block["mlp"] = _mlp(model, layer.units)
        require(bool(model.mlp_ratio) or not layer.units, "model.mlp_ratio", 0, "must be above 0: a layer has units")
        blocks.append(block)
    params = {
        "exemplar": {"w": exemplar, "b": np.zeros(d)},
        "label": {"table": table},
        "position": {"table": marks},
        "blocks": blocks,
        "readout": {"w": readout, "b": np.zeros(1)},
    }
    return ConstructedModel(model, params)


def _attention(model: Transformer, heads: Sequence[Head]) -> dict[str, np.ndarray]:
    d, size = model.width, model.width // model.heads
    require(len(heads) <= model.heads, "heads of a layer", len(heads), f"must be at most {model.heads}")
    q, k, v, o = (np.zeros((d, d)) for _ in "qkvo")
    for h, head in enumerate(heads):
        at = h * size
        for asks, shown, factor in head.compares:
            for a, b in zip(_coordinates(asks), _coordinates(shown), strict=True):
                q[a, at], k[b, at] = factor, 1.0
                at += 1
        require(at <= (h + 1) * size, "compared coordinates", at - h * size, f"must be at most {size} in a head")
        at = h * size
        for source, target, factor in head.moves:
            for a, b in zip(_coordinates(source), _coordinates(target), strict=True):
                v[a, at], o[at, b] = factor, 1.0
                at += 1
        require(at <= (h + 1) * size, "moved coordinates", at - h * size, f"must be at most {size} in a head")
    return {"q": q, "k": k, "v": v, "o": o}


def _mlp(model: Transformer, units: Sequence[Unit]) -> dict[str, np.ndarray]:
    d, hidden = model.width, model.width * model.mlp_ratio
    require(len(units) <= hidden, "units of a layer", len(units), f"must be at most {hidden}")
    w_in, b_in, w_out = np.zeros((d, hidden)), np.zeros(hidden), np.zeros((hidden, d))
    for u, unit in enumerate(units):
        for place, factor in unit.reads:
            w_in[place, u] += factor
        b_in[u] = unit.bias
        for place, factor in unit.writes:
            w_out[u, place] += factor
    return {"w_in": w_in, "b_in": b_in, "w_out": w_out, "b_out": np.zeros(d)}


def _coordinates(place: Place) -> Iterator[int]:
    yield from range(place.start, place.stop) if isinstance(place, slice) else (place,)
