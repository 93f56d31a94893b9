"""Exact checks of the conversion of a context to biases: where it is exact, in composition and reversal too, and where
it is not."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from msgspec.structs import replace

from ebbtide.checks import Check
from ebbtide.mechanisms.conversion import fold_unchecked, query_alone
from ebbtide.models.linearized import BiasedSoftmax, Linearized
from ebbtide.models.model import Params
from ebbtide.models.positions import Learned, NoPositions, Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import FunctionPrompt

Measure = Callable[[Transformer, Params, FunctionPrompt], Array]

HALF, DIM = 3, 5
PAIRS = 2 * HALF
PLAIN = Transformer(layers=2, width=16, heads=2, attention=Linearized(biases=True), positions=Rotary(), pairing="joint")
DECAYED = 1 - 2.0**-5
FEATURES = {
    "elu": Linearized("elu"),
    "relu2": Linearized("relu2"),
    "exp": Linearized("exp"),
    "identity, no normaliser": Linearized("identity", normalizer=False),
    "elu, no normaliser": Linearized("elu", normalizer=False),
}


OPTIONS = ((1, 2), (NoPositions(), Rotary()), (1.0, DECAYED))
"""Numbers of heads, positions, and factors of decay."""
OF_ONE_LAYER = ((0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 0), (0, 0, 1))
"""Which option of each the model of one layer has, for every feature map; the model of three layers has the other."""


def grid() -> Iterator[Transformer]:
    """Ten models of 1 and of 3 layers (a first and a last one, with one between): every two values of layers, heads,
    positions, decay and feature map occur together in one of them."""
    for kind, chosen in zip(FEATURES.values(), OF_ONE_LAYER, strict=True):
        for layers, other in ((1, 0), (3, 1)):
            heads, positions, decay = (two[one ^ other] for two, one in zip(OPTIONS, chosen, strict=True))
            attention = replace(kind, decay=decay, biases=True)
            yield replace(PLAIN, layers=layers, heads=heads, positions=positions, attention=attention)


def draw_prompt(seed: int, dtype: type) -> FunctionPrompt:
    """One prompt of standard normal inputs and responses."""
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((PAIRS + 1, 1, DIM)), random.standard_normal((PAIRS + 1, 1))
    return FunctionPrompt(jnp.asarray(x, dtype), jnp.asarray(y, dtype), jnp.ones((PAIRS, 1), bool), {})


def draw_parameters(model: Transformer, dtype: type) -> Params:
    """Random parameters, the biases too: none is 0, and those of the normaliser are above 0, as a context leaves them.
    Drawn by NumPy: nothing to compile."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), context=PAIRS, dim=DIM, labels=0))
    random = np.random.default_rng(1)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> Array:
        scale = 1 / math.sqrt(leaf.shape[0]) if len(leaf.shape) > 1 else 0.1
        value = random.standard_normal(leaf.shape) * scale + (len(leaf.shape) == 1)
        return jnp.asarray(abs(value) if "b_d" in str(path[-1]) else value, dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def part_of(prompt: FunctionPrompt, first: int, last: int) -> FunctionPrompt:
    """The pairs `first` to `last` - 1 of a prompt and its query."""
    kept = jnp.asarray([*range(first, last), PAIRS])
    return FunctionPrompt(prompt.inputs[kept], prompt.responses[kept], prompt.present[first:last], {})


def _gap(mine: Array, theirs: Array) -> Array:
    """|mine - theirs| / |theirs|."""
    return jnp.linalg.norm(mine - theirs) / jnp.linalg.norm(theirs)


def _farthest(mine: Params, theirs: Params) -> Array:
    """The largest `_gap` of the arrays."""
    return jnp.stack(jax.tree.leaves(jax.tree.map(_gap, mine, theirs))).max()


def converted(model: Transformer, params: Params, prompt: FunctionPrompt) -> Array:
    """Relative error of the query's output with the context converted, taken from a prompt with another query."""
    other = prompt._replace(inputs=prompt.inputs.at[-1].multiply(-1))
    told, whole = model.apply(params, prompt)[-1], fold_unchecked(model, params, other)
    return _gap(model.apply(whole, query_alone(prompt))[-1], told)


def composed(model: Transformer, params: Params, prompt: FunctionPrompt) -> Array:
    """Relative error of the parameters after the two halves of the context were converted one after the other."""
    halves = fold_unchecked(model, params, part_of(prompt, 0, HALF))
    halves = fold_unchecked(model, halves, part_of(prompt, HALF, PAIRS))
    return _farthest(halves, fold_unchecked(model, params, prompt))


def reversed_again(model: Transformer, params: Params, prompt: FunctionPrompt) -> Array:
    """Relative error of the parameters after conversion and reversal."""
    whole = fold_unchecked(model, params, prompt)
    return _farthest(fold_unchecked(model, whole, prompt, undo=True), params)


def dropped(model: Transformer, params: Params, prompt: FunctionPrompt) -> Array:
    """Relative change of the query's output where the context is left out."""
    return _gap(model.apply(params, query_alone(prompt))[-1], model.apply(params, prompt)[-1])


def measure(model: Transformer, dtype: type, *asked: Measure) -> list[float]:
    """Measures of a model with random parameters, computed operation by operation: models of one shape share what is
    compiled."""
    params, prompt = draw_parameters(model, dtype), draw_prompt(0, dtype)
    return [float(one(model, params, prompt)) for one in asked]


def conversion() -> Iterator[Check]:
    """Conversion, composition and reversal are exact to rounding in float64, and conversion in float32."""
    models = list(grid())
    with jax.enable_x64(True):
        found = [measure(model, np.float64, converted, composed, reversed_again, dropped) for model in models]
    error, twice, undone, _ = np.max(found, axis=0)
    least = min(row[-1] for row in found)
    detail = f"{len(models)} models: relative error {error:.1e}, without the context {least:.2g} or more"
    yield Check("context converted to biases, float64", bool(error <= 1e-12 and least > 1e-3), detail)
    rough = [measure(model, np.float32, converted)[0] for model in models if model.heads == 2]
    words = f"{len(rough)} models: relative error {max(rough):.1e}"
    yield Check("context converted to biases, float32", max(rough) <= 1e-5, words)
    yield Check("context converted in two parts", bool(twice <= 1e-12), f"relative error of the biases {twice:.1e}")
    yield Check("conversion reversed", bool(undone <= 1e-12), f"relative error of the biases {undone:.1e}")


CONTROLS = {
    "absolute positions": replace(PLAIN, positions=Learned()),
    "no mask": replace(PLAIN, mask="none"),
    "softmax by 64 random features": replace(PLAIN, attention=BiasedSoftmax(64), positions=NoPositions()),
}
"""Models of which a context cannot be converted exactly."""


def inexact_conversion() -> Check:
    """The conversion is not exact where it cannot be: the checks above would notice."""
    found = {name: measure(model, np.float32, converted)[0] for name, model in CONTROLS.items()}
    detail = ", ".join(f"{name} {error:.2g}" for name, error in found.items())
    return Check("conversion not exact: absolute positions, no mask, softmax", min(found.values()) > 1e-2, detail)
