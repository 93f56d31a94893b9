"""Encoders of exemplars into tokens: one linear layer, or a small ResNet over pixels that is trained with the model."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require
from ebbtide.models.convolution import Images, convolve, max_pool
from ebbtide.models.layers import EPSILON, init_norm, linear, weight
from ebbtide.models.product import Product

Size = Annotated[int, msgspec.Meta(ge=1)]
Channels = Annotated[int, msgspec.Meta(ge=4, le=4096, multiple_of=4)]


class Linear(msgspec.Struct, frozen=True, tag="linear", forbid_unknown_fields=True):
    """One linear layer: e = x W + b.

    >>> eb.Transformer(encoder=eb.Linear()) == eb.Transformer()
    True
    """

    def check(self, dim: int) -> None:
        """Does nothing: exemplars of any `dim` can be read."""

    def init(self, key: Key[Array, ""], dim: int, width: int) -> dict[str, Any]:
        return {"w": weight(key, dim, width), "b": jnp.zeros(width)}

    def apply(self, params: Any, exemplars: Float[Array, "slots batch dim"]) -> Float[Array, "slots batch d"]:
        """The embedding of every exemplar, as wide as the model."""
        return linear(exemplars, params["w"], params["b"])

    def weights(self, dim: int, width: int) -> int:
        """Number of entries in the encoder's matrices."""
        return dim * width

    def stored_values(self, dim: int) -> int:
        """Smallest number of values that the encoder stores at once for one exemplar, in addition to its result."""
        return 0

    def products(self, exemplars: int, dim: int, width: int) -> list[Product]:
        """The matrix products of the encoder's forward pass. Exemplars are data: no gradient with respect to them is
        computed."""
        return [Product("exemplars", 1, exemplars, dim, width, gradients=1)]


class Convolution(NamedTuple):
    """A convolution [kernel, kernel, fan_in, fan_out] whose output has `side` x `side` pixels."""

    kernel: int
    fan_in: int
    fan_out: int
    side: int

    def init(self, key: Key[Array, ""]) -> dict[str, Array]:
        """The weights of the convolution and of its norm."""
        return {"w": weight(key, self.kernel, self.kernel, self.fan_in, self.fan_out)} | init_norm(self.fan_out)

    def weights(self) -> int:
        """Number of entries in the filter."""
        return self.kernel**2 * self.fan_in * self.fan_out

    def product(self, name: str, images: int) -> Product:
        """The convolution of `images` images as a matrix product. The pixels themselves need no gradient."""
        gradients = 1 if name == "stem" else 2
        return Product(name, 1, images * self.side**2, self.kernel**2 * self.fan_in, self.fan_out, gradients)


Block = dict[str, Convolution]


class ResNet(msgspec.Struct, frozen=True, tag="resnet", forbid_unknown_fields=True):
    r"""A residual network over square grey images, trained together with the model: that of the public
    code of Chan et al. 2022 (2205.05055), in which the transience paper trained.

    Exemplars of `dim` = side^2 features are images, row by row. A stem (`stem` x `stem` convolution of
    stride `stem_stride` to `stem_channels`, norm, ReLU, and with `pool` a 3 x 3 max pool of stride 2), then for
    every number C in `channels` a group of `blocks` bottleneck blocks (He et al. 2016, arXiv 1512.03385)
    $$x \leftarrow \mathrm{ReLU}(S(x) + N_3 W_3\, \mathrm{ReLU}\, N_2 W_2\, \mathrm{ReLU}\, N_1 W_1 x),$$
    $W_1$: 1 x 1 to C / 4, $W_2$: 3 x 3, $W_3$: 1 x 1 to C. The first block of a group has a projection
    $S = N_0 W_0$, and in every group but the first it halves the image ($W_2$ and $W_0$ have stride 2);
    elsewhere S(x) = x. The scale of $N_3$ starts at 0. At the end the mean over pixels, and a linear layer
    where the last C is not the model's width. Convolutions have no bias and are padded to ceil(side / stride).

    The norms N, over pixels and images for every channel (`batch`) or over pixels and channels for every image
    (`layer`: group norm with one group, arXiv 1803.08494), have a scale and an offset. `batch` uses the statistics of
    the images at hand in training and in evaluation alike. The public code of the transience paper trains so,
    and evaluates one sequence at a time with running averages (decay 0.9); an evaluation here takes at least a batch
    of sequences together, so that their own statistics are as sure, and no state exists that no gradient trains. With
    `batch` the answer to a sequence depends, a little, on the sequences beside it; with `layer` it does not.

    The defaults are the paper's (105 x 105 pixels, model width 64): 22,176 parameters. On two cores take 28 x 28
    pixels, model width 32 and `ResNet(stem=3, stem_channels=16, channels=(16, 32))`: 3,920 parameters.

    >>> eb.ResNet(stem=3, stem_channels=16, channels=(16, 32)).weights(dim=28 * 28, width=32)
    3504
    """

    stem: Size = 7
    stem_stride: Size = 2
    stem_channels: Size = 64
    pool: bool = True
    channels: Annotated[tuple[Channels, ...], msgspec.Meta(min_length=1, max_length=8)] = (16, 32, 32, 64)
    blocks: Size = 2
    norm: Literal["batch", "layer"] = "batch"

    def check(self, dim: int) -> None:
        """Raises `InputError` unless exemplars are square images."""
        allowed = f"needs square images, whose pixels are a square number; an exemplar has {dim} features"
        require(math.isqrt(dim) ** 2 == dim, "model.encoder", "resnet", allowed)

    def init(self, key: Key[Array, ""], dim: int, width: int) -> dict[str, Any]:
        """Parameters for images of `dim` pixels: `stem`, `blocks` (of all groups in a row) and perhaps `out`."""
        stem, blocks = self._plan(dim)
        keys = iter(jax.random.split(key, 2 + 4 * len(blocks)))
        params = {"stem": stem.init(next(keys)), "out": None, "blocks": []}
        last = next(keys)
        for block in blocks:
            layer_params = {name: one.init(next(keys)) for name, one in block.items()}
            layer_params["conv3"]["scale"] = jnp.zeros_like(layer_params["conv3"]["scale"])
            params["blocks"].append(layer_params)
        if self.channels[-1] != width:
            params["out"] = {"w": weight(last, self.channels[-1], width), "b": jnp.zeros(width)}
        return {name: one for name, one in params.items() if one is not None}

    def apply(self, params: Any, exemplars: Float[Array, "slots batch dim"]) -> Float[Array, "slots batch d"]:
        """The embedding of every image. With `norm = "batch"` it depends on all images of the batch."""
        slots, batch, dim = exemplars.shape
        side = math.isqrt(dim)
        x = exemplars.reshape(slots * batch, side, side, 1)
        x = jax.nn.relu(self._layer(params["stem"], x, self.stem_stride))
        x = max_pool(x) if self.pool else x
        for i, block in enumerate(params["blocks"]):
            x = self._block(block, x, self._stride(i))
        x = x.mean((1, 2))
        x = linear(x, **params["out"]) if "out" in params else x
        return x.reshape(slots, batch, -1)

    def weights(self, dim: int, width: int) -> int:
        """Number of entries in the encoder's filters and matrices."""
        stem, blocks = self._plan(dim)
        out = 0 if self.channels[-1] == width else self.channels[-1] * width
        return stem.weights() + sum(one.weights() for block in blocks for one in block.values()) + out

    def stored_values(self, dim: int) -> int:
        """Number of values in the stem's images, all of which the norm needs at once."""
        stem, _ = self._plan(dim)
        return stem.side**2 * stem.fan_out

    def products(self, exemplars: int, dim: int, width: int) -> list[Product]:
        """The convolutions of the encoder's forward pass, as matrix products."""
        stem, blocks = self._plan(dim)
        products = [stem.product("stem", exemplars)]
        products += [one.product(name, exemplars) for block in blocks for name, one in block.items()]
        last = self.channels[-1]
        return products if last == width else [*products, Product("out", 1, exemplars, last, width)]

    def _plan(self, dim: int) -> tuple[Convolution, list[Block]]:
        """The shapes of the stem and of every block, for images of `dim` pixels."""
        side = -(-math.isqrt(dim) // self.stem_stride)
        stem, came = Convolution(self.stem, 1, self.stem_channels, side), self.stem_channels
        side = -(-side // 2) if self.pool else side
        blocks: list[Block] = []
        for out in self.channels:
            for i in range(self.blocks):
                small, inner = -(-side // self._stride(len(blocks))), out // 4
                block = {"conv1": Convolution(1, came, inner, side), "conv2": Convolution(3, inner, inner, small)}
                block |= {"conv3": Convolution(1, inner, out, small)}
                block |= {} if i else {"shortcut": Convolution(1, came, out, small)}
                blocks.append(block)
                side, came = small, out
        return stem, blocks

    def _stride(self, block: int) -> int:
        """The stride of a block: 2 in the first block of every group but the first."""
        return 2 if block and block % self.blocks == 0 else 1

    def _block(self, block: Any, x: Images, stride: int) -> Images:
        y = jax.nn.relu(self._layer(block["conv1"], x, 1))
        y = jax.nn.relu(self._layer(block["conv2"], y, stride))
        y = self._layer(block["conv3"], y, 1)
        x = self._layer(block["shortcut"], x, stride) if "shortcut" in block else x
        return jax.nn.relu(x + y)

    def _layer(self, layer: Any, x: Images, stride: int) -> Images:
        """A convolution and its norm."""
        y = convolve(x, layer["w"], stride)
        axes = (0, 1, 2) if self.norm == "batch" else (1, 2, 3)
        mean = y.mean(axes, keepdims=True)
        variance = ((y - mean) ** 2).mean(axes, keepdims=True)
        slope = jax.lax.rsqrt(variance + EPSILON) * layer["scale"]
        return y * slope + (layer["offset"] - mean * slope)  # one pass over the images


Encoder = Linear | ResNet
