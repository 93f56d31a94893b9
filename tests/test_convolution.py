"""Convolutions and their gradients against those JAX makes, and the order of dimensions in which XLA is given them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbtide.models.convolution import convolve
from effort import examples

pytestmark = pytest.mark.usefixtures("quick_compile")


def theirs(x, w, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=layout)


def drawn(kernel: int, side: int, fan_in: int = 2, fan_out: int = 3, images: int = 4):
    rng = np.random.default_rng(kernel + 10 * side)
    shapes = (images, side, side, fan_in), (kernel, kernel, fan_in, fan_out)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@settings(max_examples=examples(quick=25, thorough=100))
@given(kernel=st.integers(1, 7), side=st.integers(1, 11), stride=st.integers(1, 4))
def test_values_and_gradients_are_those_of_a_convolution(kernel, side, stride):
    """Kernels larger than the image, strides larger than the kernel, and images that no stride divides are among
    them. Members side by side have the same."""
    x, w = drawn(kernel, side)
    made, back = jax.vjp(lambda x, w: convolve(x, w, stride), x, w)
    expected, their_back = jax.vjp(lambda x, w: theirs(x, w, stride), x, w)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)
    gradient = jnp.asarray(np.random.default_rng(0).normal(size=made.shape), jnp.float32)
    for one, other in zip(back(gradient), their_back(gradient), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


def test_gradients_of_members_side_by_side():
    x, w = drawn(3, 9)
    both = jnp.stack([w, -2 * w])

    def slope(w):
        return jax.grad(lambda w: (convolve(x, w, 2) ** 3).sum())(w)

    side_by_side = jax.vmap(slope)(both)
    for i in range(2):
        np.testing.assert_allclose(side_by_side[i], slope(both[i]), rtol=1e-4, atol=1e-3)


def test_no_convolution_in_a_loop_is_in_an_order_that_is_slow_on_a_cpu():
    """XLA orders dimensions in a program's entry only: in a loop a gradient in another order runs by the slowest of
    its ways. Read from the program that XLA is left with; JAX's own gradients do not pass."""
    x, w = drawn(3, 9)

    def orders(convolution):
        def step(_, kept):
            x, w = kept
            dx, dw = jax.grad(lambda x, w: (convolution(x, w, 2) ** 3).sum(), (0, 1))(x, w)
            return x - 1e-3 * dx, w - 1e-3 * dw

        looped = jax.jit(lambda n, x, w: jax.lax.fori_loop(0, n, step, (x, w)))
        return re.findall(r"dim_labels=(\S+?)[,\s]", str(looped.lower(3, x, w).compile().as_text()))

    ours, others = orders(convolve), orders(theirs)
    assert len(ours) == 3 and set(ours) == {"b01f_01io->b01f"}
    assert set(others) != {"b01f_01io->b01f"}
