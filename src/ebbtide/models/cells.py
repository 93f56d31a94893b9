"""The read-out of several cells at once: from segments of a hidden state, or for every cell from all of it."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key
from msgspec import UNSET, UnsetType

from ebbtide.errors import require
from ebbtide.models.layers import linear, weight
from ebbtide.models.model import Tap, init_readout, read_out

Head = dict[str, Array]


class CellReadout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    r"""The read-out of `cells` cells, such as those of a stack, each with logits for the same number of values (Shi et
    al. 2022, arXiv 2112.09174).

    Every cell has a head of two layers, $W_2 \sigma(W_1 x + b_1) + b_2$, with a sigmoid and `hidden` units for every
    number of x.

    - `forced` decomposition: the hidden state is cut into `cells` segments of equal length, and x is the segment of the
      cell. The first cell, the automaton's state, has a head of its own; all others share one.
    - `latent` decomposition: x is the whole hidden state, and every cell has a head of its own.

    Args:
        decomposition: "forced" or "latent".
        cells: the number of cells, the first among them.
        hidden: hidden units of a head, in units of the length of x.

    >>> model = eb.Recurrent(layers=1, width=20, pairing="states", readout=eb.CellReadout(cells=5))
    >>> model.parameters(context=8, dim=6, labels=15) > 0
    True
    """

    decomposition: Literal["forced", "latent"] = "latent"
    cells: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 5
    hidden: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2

    def check(self, width: int, cells: int) -> None:
        """Raises `InputError` for a task whose responses have another number of cells (0: none), and for a width that
        cannot be cut into the segments."""
        allowed = f"must be {cells}: the task's responses have so many" if cells else "needs a task of cells"
        require(self.cells == cells, "model.readout.cells", self.cells, allowed)
        fits = self.decomposition == "latent" or width % self.cells == 0
        require(fits, "model.readout.cells", self.cells, f"must divide width = {width} for the forced decomposition")

    def init(self, key: Key[Array, ""], width: int, labels: int) -> dict[str, Head]:
        """Initial parameters: weights LeCun normal, biases 0."""
        values, size = labels // self.cells, width // self.cells
        state_key, stack_key = jax.random.split(key)

        def head(key: Key[Array, ""], inputs: int) -> Head:
            one, two = jax.random.split(key)
            units = inputs * self.hidden
            first = {"w_in": weight(one, inputs, units), "b_in": jnp.zeros(units)}
            return first | {"w_out": weight(two, units, values), "b_out": jnp.zeros(values)}

        if self.decomposition == "forced":
            return {"state": head(state_key, size), "stack": head(stack_key, size)}
        stack = jax.vmap(lambda one: head(one, width))(jax.random.split(stack_key, self.cells - 1))
        return {"state": head(state_key, width), "stack": stack}

    def apply(self, params: Any, x: Float[Array, "*rows width"]) -> Float[Array, "*rows labels"]:
        """The logits of every value of every cell, one cell after the other."""
        rows = x.shape[:-1]
        if self.decomposition == "forced":
            segments = x.reshape(*rows, self.cells, -1)
            state, stack = _head(params["state"], segments[..., :1, :]), _head(params["stack"], segments[..., 1:, :])
        else:
            state = _head(params["state"], x)[..., None, :]
            stack = jnp.moveaxis(jax.vmap(_head, (0, None))(params["stack"], x), 0, -2)
        return jnp.concatenate([state, stack], axis=-2).reshape(*rows, -1)

    def weights(self, width: int, labels: int) -> int:
        """Number of entries in the matrices."""
        values, forced = labels // self.cells, self.decomposition == "forced"
        size = width // self.cells if forced else width
        return (2 if forced else self.cells) * self.hidden * size * (size + values)


def _head(w: Head, x: Float[Array, "*rows d"]) -> Float[Array, "*rows values"]:
    return linear(jax.nn.sigmoid(linear(x, w["w_in"], w["b_in"])), w["w_out"], w["b_out"])


def init_outputs(key: Key[Array, ""], readout: CellReadout | UnsetType, width: int, outputs: int) -> dict[str, Any]:
    """Initial parameters of a read-out of cells, or, where it is unset, of the linear one."""
    return init_readout(key, width, outputs) if readout is UNSET else readout.init(key, width, outputs)


def compute_outputs(
    params: Any, readout: CellReadout | UnsetType, x: Float[Array, "*predicted batch d"], tap: Tap
) -> Float[Array, "*predicted batch labels"]:
    """The outputs of a read-out of cells, or, where it is unset, of the linear one."""
    if readout is UNSET:
        return read_out(params, x, tap)
    return tap("hook_logits", readout.apply(params["readout"], x))
