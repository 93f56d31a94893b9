"""What sources of pixels share: the eight transforms and the bank of bytes."""

import jax.numpy as jnp
import numpy as np
import pytest

from ebbtide.sources.images import eight_transforms, look_up_pixels, pixel_bank

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 2, 5, 5), dtype=np.uint8)


def test_the_order_is_class_then_flip_then_turn():
    made = eight_transforms(IMAGES)
    assert made.shape == (24, 2, 5, 5) and made.dtype == np.uint8
    for c in range(3):
        for e in range(2):
            for k in range(4):
                np.testing.assert_array_equal(made[8 * c + k, e], np.rot90(IMAGES[c, e], k))
                np.testing.assert_array_equal(made[8 * c + 4 + k, e], np.rot90(np.fliplr(IMAGES[c, e]), k))


def test_by_hand():
    """A pixel at the upper left: counter-clockwise it goes down, right, up; mirrored it begins upper right."""
    corner = np.zeros((1, 1, 2, 2), np.uint8)
    corner[0, 0, 0, 0] = 1
    at = [tuple(np.argwhere(image[0])[0]) for image in eight_transforms(corner)]
    assert at == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 1), (0, 0), (1, 0), (1, 1)]


def test_the_eight_form_the_group_of_the_square():
    """No two are alike, every transform of a transform is one of the eight, and each is reached once."""
    eight = eight_transforms(IMAGES[:1, :1])
    known = {image.tobytes() for image in eight}
    assert len(known) == 8
    for one in eight:
        assert {image.tobytes() for image in eight_transforms(one[None])} == known


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
def test_the_type_is_kept(dtype):
    assert eight_transforms(IMAGES.astype(dtype)).dtype == dtype


def test_the_bank_holds_bytes_and_is_read_in_zero_to_one():
    bank = pixel_bank(IMAGES)
    assert bank.features.shape == (3, 2, 25) and bank.features.dtype == jnp.uint8
    classes, exemplars = jnp.asarray([[2, 0], [1, 1]]), jnp.asarray([[1, 0], [0, 1]], jnp.uint32)
    got = look_up_pixels(bank, classes, exemplars)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, IMAGES[classes, exemplars].reshape(2, 2, 25) / 255, rtol=1e-6)


def test_no_ink_is_zero_and_full_ink_is_one():
    extremes = np.asarray([0, 255], np.uint8).reshape(2, 1, 1, 1)
    got = look_up_pixels(pixel_bank(extremes), jnp.arange(2), jnp.zeros(2, jnp.uint32))
    np.testing.assert_array_equal(got.ravel(), [0, 1])
