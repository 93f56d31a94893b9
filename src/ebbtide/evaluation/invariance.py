"""The dependence of a model's predictions on the order of the pairs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ebbtide.models.model import Model, Params
from ebbtide.tasks.prompt import FunctionPrompt


def draw_orders(key: Key[Array, ""], context: int, batch: int) -> Int[Array, "context batch"]:
    """Random orders of the pairs, drawn independently for every prompt."""
    return jnp.argsort(jax.random.uniform(key, (context, batch)), axis=0)


def permute_pairs(prompt: FunctionPrompt, order: Int[Array, "context batch"]) -> FunctionPrompt:
    """The prompt with its pairs reordered: place i has pair order[i]. The query stays last."""

    def moved(values: Array) -> Array:
        at = order.reshape(*order.shape, *[1] * (values.ndim - 2))
        return jnp.concatenate([jnp.take_along_axis(values[: len(order)], at, axis=0), values[len(order) :]])

    return prompt._replace(
        inputs=moved(prompt.inputs), responses=moved(prompt.responses), present=moved(prompt.present)
    )


def invariance_gap(
    model: Model, params: Params, prompt: FunctionPrompt, order: Int[Array, "context batch"]
) -> Float[Array, " batch"]:
    r"""The invariance gap $|f(\pi S, q) - f(S, q)|^2 / \mathrm{Var}(y)$ of every prompt: the squared change of the
    prediction for its query when its pairs are reordered, in units of the mean square of the queries' responses.

    0 to rounding for a function of the set of pairs, which Chen et al. 2023 (arXiv 2311.18194) call ICL invariance.
    Responses must be real numbers. Can be compiled.
    """
    here, there = (model.apply(params, one)[-1, :, 0] for one in (prompt, permute_pairs(prompt, order)))
    return (there - here) ** 2 / (prompt.responses[-1] ** 2).mean()
