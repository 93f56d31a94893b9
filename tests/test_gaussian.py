"""The Gaussian source: its moments are those of its definition."""

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.sources.gaussian import INFINITE, Gaussian

pytestmark = pytest.mark.usefixtures("quick_compile")

MANY = Gaussian(classes=300, exemplars=4, dim=64, noise=0.7, scale="norm", holdout_classes=20, holdout_exemplars=2)


def features(source: Gaussian) -> np.ndarray:
    return np.asarray(source.build().features, float)


@pytest.mark.parametrize(("scale", "squared"), [("norm", 1.0), ("coordinate", 64.0)])
@pytest.mark.parametrize("noise", [0.0, 0.7, 3.0])
def test_norm(scale, squared, noise):
    x = features(replace(MANY, scale=scale, noise=noise))
    assert x.shape == (320, 6, 64)
    norms = (x**2).sum(-1).mean(1)  # independent between classes; sd of a squared norm is at most sqrt(2 / dim)
    np.testing.assert_allclose(norms.mean(), squared, rtol=5 * np.sqrt(2 / 64 / 320))
    np.testing.assert_allclose(x.mean((0, 1)), 0, atol=5 * np.sqrt(squared / 64 / 320))


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
def test_correlation_within_and_between_classes(noise):
    """Within a class 1 / (1 + noise^2); between classes 0."""
    x = features(replace(MANY, noise=noise))
    within = (x[:, 0] * x[:, 1]).sum(-1).mean()
    between = (x[:-1, 0] * x[1:, 1]).sum(-1).mean()
    np.testing.assert_allclose(within, 1 / (1 + noise**2), atol=5 * np.sqrt(2 / 64 / 320))
    np.testing.assert_allclose(between, 0, atol=5 / np.sqrt(64 * 320))


def test_all_exemplars_differ_unless_there_is_no_noise():
    x = features(MANY).reshape(-1, 64)
    assert len(np.unique(x, axis=0)) == len(x)
    still = features(replace(MANY, noise=0.0))
    np.testing.assert_array_equal(still, np.broadcast_to(still[:, :1], still.shape))


def test_an_infinite_source_begins_with_the_finite_one():
    endless = replace(MANY, infinite=True)
    classes = jnp.arange(320)[:, None].repeat(6, 1)
    exemplars = jnp.arange(6, dtype=jnp.uint32)[None].repeat(320, 0)
    got = endless.look_up(endless.build(), classes, exemplars)
    np.testing.assert_allclose(got, features(MANY), rtol=1e-6, atol=1e-7)


def test_an_infinite_source_does_not_repeat_itself():
    endless = replace(MANY, infinite=True)
    exemplars = jnp.asarray([0, 1, 2**31 - 1, 2**31, 2**32 - 1], jnp.uint32)
    got = np.asarray(endless.look_up(endless.build(), jnp.full(5, 3), exemplars))
    assert len(np.unique(got, axis=0)) == 5


def test_look_up_of_a_finite_source_is_indexing():
    bank = MANY.build()
    classes, exemplars = jnp.asarray([[0, 319], [7, 7]]), jnp.asarray([[5, 0], [1, 2]], jnp.uint32)
    np.testing.assert_array_equal(MANY.look_up(bank, classes, exemplars), bank.features[classes, exemplars])


def test_a_source_is_a_function_of_its_seed():
    one, again, other = features(MANY), features(MANY), features(replace(MANY, seed=1))
    np.testing.assert_array_equal(one, again)
    assert not np.isclose(one, other).any(-1).all()
    assert abs((one[:, 0] * other[:, 0]).sum(-1).mean()) < 5 / np.sqrt(64 * 320)


def test_more_exemplars_or_classes_leave_the_others_as_they_are():
    more = features(replace(MANY, exemplars=6))
    np.testing.assert_array_equal(more[:, :6], features(MANY))


def test_split_ranges_are_disjoint_and_cover_the_bank():
    sizes = MANY.sizes()
    train, held = sizes.split(), sizes.split(holdout_classes=True, holdout_exemplars=True)
    assert (train.classes, held.classes) == ((0, 300), (300, 20))
    assert (train.exemplars, held.exemplars) == ((0, 4), (4, 2))
    endless = replace(MANY, infinite=True).sizes()
    assert endless.split(holdout_exemplars=True).exemplars == (INFINITE, INFINITE)
    assert endless.split(holdout_exemplars=True).classes == (0, 300)


@pytest.mark.parametrize(
    ("field", "value"),
    [("classes", 0), ("exemplars", 0), ("dim", 0), ("holdout_classes", -1), ("holdout_exemplars", -1)],
)
def test_impossible_sizes_are_refused(field, value, one_line):
    with pytest.raises(InputError) as caught:
        replace(MANY, **{field: value}).check()
    one_line(caught, f"source.{field}", value)


def test_nothing_need_be_held_out():
    source = replace(MANY, holdout_classes=0, holdout_exemplars=0)
    source.check()
    assert features(source).shape == (300, 4, 64)


@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_impossible_noise_is_refused(noise, one_line):
    with pytest.raises(InputError) as caught:
        replace(MANY, noise=noise).check()
    one_line(caught, "source.noise", noise)
