"""Integer draws: enumerated exhaustively where the space is small, by frequency where it is not."""

from functools import partial
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from ebbtide.keys import Purpose, root
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks import draws
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence, Shared

pytestmark = pytest.mark.usefixtures("quick_compile")


def words(values) -> jax.Array:
    return jnp.asarray(values, jnp.uint32)


def scalars(values) -> list[jax.Array]:
    return [jnp.int32(v) for v in values]


def each(function):
    return jax.jit(jax.vmap(function))


def random_words(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.bits(root(seed, Purpose.DATA), shape, "uint32")


@pytest.mark.parametrize("n", [1, 2, 4])
def test_skip_enumerates_the_integers_not_taken(n):
    for k in range(n):
        for taken in permutations(range(n), k):
            left = [i for i in range(n) if i not in taken]
            found = each(lambda r, taken=taken: draws.skip(r, scalars(taken)))(jnp.arange(n - k, dtype=jnp.int32))
            assert found.tolist() == left


@pytest.mark.parametrize(("n", "k", "taken"), [(4, 2, ()), (4, 4, ()), (5, 3, (2,)), (6, 2, (5, 0)), (3, 1, (0, 2))])
def test_distinct_reaches_every_ordered_choice_exactly_once(n, k, taken):
    sizes = [n - len(taken) - i for i in range(k)]
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in sizes], indexing="ij"), -1).reshape(-1, k)
    got = each(lambda w: jnp.stack(draws.distinct(w, n, scalars(taken))))(words(grid))
    expected = sorted(permutations([i for i in range(n) if i not in taken], k))
    assert sorted(map(tuple, np.asarray(got).tolist())) == expected


@pytest.mark.parametrize("labels", [2, 3, 5, 7])
@pytest.mark.parametrize("classes", [7, 8, 15])
def test_other_label_enumerates_the_classes_of_other_labels(classes, labels):
    enumerate_others = jax.jit(jax.vmap(lambda r, label: draws.other_label(r, label, labels), in_axes=(0, None)))
    for label in range(labels):
        allowed = [c for c in range(classes) if c % labels != label]
        ranks = jnp.arange(len(allowed), dtype=jnp.int32)
        got = enumerate_others(ranks, jnp.int32(label))
        assert got.tolist() == allowed


def test_unit_and_integer_cover_their_ranges():
    ends = words([0, 255, 256, 2**32 - 1])
    np.testing.assert_array_equal(each(draws.unit)(ends), np.asarray([0, 0, 2.0**-24, 1 - 2.0**-24], np.float32))
    assert each(lambda w: draws.integer(w, 10))(ends).tolist() == [0, 5, 6, (2**32 - 1) % 10]
    assert int(draws.integer(words(2**32 - 1), 2**31)) == 2**31 - 1


def test_integer_is_uniform():
    got = each(lambda w: draws.integer(w, 13))(random_words(0, (26_000,)))
    assert chisquare(np.bincount(got, minlength=13)).pvalue > 1e-3


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_zipf_weights(exponent):
    got = draws.zipf_weights(50, exponent)
    expected = np.arange(1, 51, dtype=float) ** -exponent
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=2e-6)


@partial(jax.jit, static_argnames="k")
def draw_weighted(words, weights, taken, k: int) -> jax.Array:
    edges = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weights)])
    return jax.vmap(lambda w: draws.weighted(w, weights, edges, [taken[i] for i in range(k)]))(words)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_weighted_has_the_restricted_probabilities(exponent, k):
    """Words that cut the unit interval into equal parts give the probabilities themselves."""
    n, points = 6, 4000
    weights = draws.zipf_weights(n, exponent)
    grid = words((np.arange(points) + 0.5) / points * 2**32)
    for taken in combinations(range(n), k):
        expected = np.asarray(weights, float)
        expected[list(taken)] = 0
        got = draw_weighted(grid, weights, jnp.asarray(taken[::-1], jnp.int32), k)
        np.testing.assert_allclose(np.bincount(got, minlength=n) / points, expected / expected.sum(), atol=1.5 / points)


@pytest.mark.parametrize("taken", [(0,), (39,), (0, 1), (38, 39), (0, 39), (0, 1, 2, 39)])
def test_weighted_never_returns_a_taken_value(taken):
    """Steep weights put the edges of the rare classes within a rounding error of each other."""
    weights = draws.zipf_weights(40, 6.0)
    ends = jnp.concatenate([random_words(1, (2000,)), words([0, 2**32 - 1])])
    got = draw_weighted(ends, weights, jnp.asarray(taken, jnp.int32), len(taken))
    assert not set(taken) & set(got.tolist())
    assert int(got.min()) >= 0 and int(got.max()) < 40


def shapes_inside(jaxpr) -> set[tuple[int, ...]]:
    """The shapes of all values computed in a jaxpr, sub-programs included."""
    found: set[tuple[int, ...]] = set()
    for equation in jaxpr.eqns:
        found |= {tuple(v.aval.shape) for v in equation.outvars}
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found |= shapes_inside(inner)
    return found


CLASSES, BATCH = 4099, 37


def sampled_shapes(task: FewShot) -> set[tuple[int, ...]]:
    source = Gaussian(classes=CLASSES, exemplars=2, dim=3, holdout_classes=1, holdout_exemplars=1)
    bank = jax.eval_shape(source.build)
    index = jax.ShapeDtypeStruct((BATCH,), jnp.uint32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def sample(key, index, bank):
        return task.sample(key, index, source, bank, source.sizes().split())

    return shapes_inside(jax.make_jaxpr(sample)(key, index, bank).jaxpr)


@pytest.mark.parametrize(
    "task",
    [
        FewShot(context=4, burst=1, rest="unique", p_bursty=0.5),
        FewShot(context=4, burst=1, rest="no_support", labels=Shared(6), distinct="label"),
        FewShot(context=4, burst=2, exemplar_draw="without_replacement", labels=PerSequence(9)),
    ],
)
def test_uniform_sampling_does_not_touch_all_classes(task):
    shapes = sampled_shapes(task)
    assert any(BATCH in shape for shape in shapes)
    assert not any(size >= CLASSES for shape in shapes for size in shape)


def test_zipf_sampling_makes_no_array_of_batch_by_classes():
    shapes = sampled_shapes(FewShot(context=4, burst=1, rest="unique", zipf=1.0))
    assert (CLASSES,) in shapes
    assert not any(len(shape) > 1 and max(shape) >= CLASSES for shape in shapes)
