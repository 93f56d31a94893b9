"""Convolutions and max pooling with custom gradients: XLA's are slow inside `lax.scan` on the CPU."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebbtide.models.layers import linear

Images = Float[Array, "images _height _width _channels"]
Filter = Float[Array, "kernel kernel fan_in fan_out"]


def convolve(x: Images, w: Filter, stride: int) -> Images:
    """The convolution of images with a square filter, padded with zeros to ceil(side / stride) output pixels."""
    return linear(x[:, ::stride, ::stride], w[0, 0]) if w.shape[0] == 1 else _convolve(x, w, stride)


def max_pool(x: Images) -> Images:
    """Maxima over 3 x 3 pixels with stride 2, of images that are nowhere negative. Computed from slices, down and then
    across, because the gradient of a pooling window takes several times as long on a CPU. Equal pixels share the
    gradient."""
    return _max_along(_max_along(x, 1), 2)


def _convolution(x: Images, w: Filter, stride: int) -> Images:
    return _canonical(x, w, "SAME", stride=stride)


def _canonical(x: Images, w: Filter, padding: Any, *, stride: int = 1, between: int = 1, apart: int = 1) -> Images:
    """A convolution with its dimensions in the order for which XLA has fast code on CPUs. `between` and `apart` are the
    dilations of images and filter."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=(stride, stride),
        padding=padding,
        lhs_dilation=(between, between),
        rhs_dilation=(apart, apart),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Images, w: Filter, stride: int) -> Images:
    """The convolution, with gradients whose dimensions are ordered here. XLA orders the dimensions of gradients for a
    CPU in the entry computation only, not in the body of a loop (jax-ml/jax issue 12868), where the gradient of a stem
    took 40 times as long. The bits are the same."""
    return _convolution(x, w, stride)


def _forward(x: Images, w: Filter, stride: int) -> tuple[Images, tuple[Images, Filter]]:
    return _convolution(x, w, stride), (x, w)


def _backward(stride: int, kept: tuple[Images, Filter], gradient: Images) -> tuple[Images, Filter]:
    def plain(x: Images, w: Filter, g: Images) -> tuple[Images, Filter]:
        return jax.vjp(partial(_convolution, stride=stride), x, w)[1](g)

    return jax.lax.platform_dependent(*kept, gradient, cpu=partial(_canonical_gradients, stride=stride), default=plain)


def _canonical_gradients(x: Images, w: Filter, gradient: Images, stride: int) -> tuple[Images, Filter]:
    """The gradients with respect to images and filter, as convolutions in canonical order."""
    side, kernel = x.shape[1], w.shape[0]
    far = (gradient.shape[1] - 1) * stride + 1  # pixels from the first window's corner to the last one's
    low = max(far - 1 + kernel - side, 0) // 2
    before = kernel - 1 - low
    padding = [(before, side - 1 + kernel - far - before)] * 2
    dx = _canonical(gradient, w[::-1, ::-1].swapaxes(2, 3), padding, between=stride)
    padding = [(low, far - 1 + kernel - side - low)] * 2
    dw = _canonical(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding, apart=stride)
    return dx, dw.transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)


def _max_along(x: Images, axis: int) -> Images:
    side = x.shape[axis]
    half = -(-side // 2)
    padding = [(0, 0)] * 4
    padding[axis] = (side % 2, 1)
    x = jnp.pad(x, padding)
    first, second, third = (jax.lax.slice_in_dim(x, i, i + 2 * half - 1, 2, axis) for i in range(3))
    return jnp.maximum(jnp.maximum(first, second), third)
