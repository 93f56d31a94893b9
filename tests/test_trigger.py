"""The induction-head task: what it draws, that it is served as a stream is, and its exact predictor."""

from functools import lru_cache
from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import chisquare

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.trigger import trigger_probs
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.intervention import label_positions
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.prompt import Prompt, Tag
from ebbtide.tasks.trigger import TRIGGER, Trigger
from ebbtide.training.engine import Engine
from ebbtide.training.kernels import unsupported_reason
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Spec, from_json

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE = Gaussian(classes=5, exemplars=1, dim=8, noise=0.0, holdout_classes=0)
TASK, N = Trigger(context=7), 4000
MODEL = Transformer(layers=2, width=16, heads=2, pairing="states")
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=MODEL,
    optimizer=Adam(lr=1e-2),
    batch=64,
    sequences=64_000,
    evaluators=TASK.evaluators(),
    evaluation_sequences=500,
    keep_best=None,
)


@lru_cache
def draw(task: Trigger = TASK, source: Gaussian = SOURCE, n: int = N) -> Prompt:
    key, split = root(2, Purpose.DATA), source.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, source, source.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def streams() -> np.ndarray:
    return np.asarray(draw().classes)


def places() -> np.ndarray:
    """The slot of the trigger in every context."""
    return (streams()[:-1] == TRIGGER).argmax(0)


def test_the_trigger_stands_last_and_once_before_and_the_target_follows_it():
    prompt, symbols, at = draw(), streams(), places()
    assert (symbols[-1] == TRIGGER).all() and ((symbols[:-1] == TRIGGER).sum(0) == 1).all()
    assert at.max() == TASK.context - 2
    np.testing.assert_array_equal(symbols[at + 1, np.arange(N)], prompt.target)
    np.testing.assert_array_equal(symbols[1:], prompt.labels)
    tags = np.asarray(prompt.tags)
    assert (tags[at, np.arange(N)] == Tag.BURSTY).all() and (tags[-1] == Tag.QUERY).all()
    assert (tags == Tag.OTHER).sum() == N * (TASK.context - 1) and (np.asarray(prompt.own_label) == -1).all()


@pytest.mark.parametrize("exemplars", [1, 3])
def test_every_slot_shows_an_exemplar_of_its_symbol(exemplars):
    source = replace(SOURCE, exemplars=exemplars, noise=0.5)
    prompt, features = draw(TASK, source), np.asarray(source.build().features)
    np.testing.assert_array_equal(prompt.classes, streams())
    np.testing.assert_array_equal(prompt.exemplars, features[streams(), np.asarray(prompt.indices)])
    shares = np.bincount(np.asarray(prompt.indices).ravel(), minlength=exemplars) / prompt.indices.size
    np.testing.assert_allclose(shares, np.full(exemplars, 1 / exemplars), atol=0.015)  # 5 standard errors


def test_places_targets_and_symbols_are_uniform_and_independent():
    at, target, symbols = places(), np.asarray(draw().target), streams()
    assert chisquare(np.bincount(at, minlength=TASK.context - 1)).pvalue > 1e-3
    assert chisquare(np.bincount(target, minlength=5)[1:]).pvalue > 1e-3
    joint = np.zeros((6, 5))
    np.add.at(joint, (at, target), 1)
    assert chisquare(joint[:, 1:].ravel()).pvalue > 1e-3
    others = np.where(symbols[:-1] == TRIGGER, -1, symbols[:-1])
    for slot in others:
        assert chisquare(np.bincount(slot[slot >= 0], minlength=5)[1:]).pvalue > 1e-4
    pairs = others[:-1] * 5 + others[1:]
    pairs = pairs[(others[:-1] > 0) & (others[1:] > 0)]
    assert chisquare(np.bincount(pairs, minlength=25).reshape(5, 5)[1:, 1:].ravel()).pvalue > 1e-3


def test_a_stream_depends_on_its_number_alone():
    key, split = root(2, Purpose.DATA), SOURCE.sizes().split()
    some = compile_fast(lambda i: TASK.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.asarray([7, 3], jnp.uint32))
    np.testing.assert_array_equal(streams()[:, [7, 3]], some.classes)


GOLDEN = ["21043240", "30414230", "04412440", "30424440"]


def test_the_streams_are_pinned():
    assert ["".join(map(str, stream)) for stream in streams()[:, :4].T] == GOLDEN


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": Functions()}, "source = 'functions': has no exemplars of classes for the task trigger"),
        ({"source": replace(SOURCE, classes=2)}, "source.classes = 2: must be at least 3: the trigger, and two"),
        ({"model": Transformer()}, "model.pairing = 'interleaved': must be states for the task trigger"),
        ({"evaluators": ("train", "icl")}, "evaluators = 'icl': must be one of train"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, line):
    with pytest.raises(InputError, match=line) as found:
        replace(SPEC, **changes).check()
    assert "\n" not in str(found.value)


def test_a_context_of_one_symbol_is_refused():
    text = SPEC.to_json().decode()
    with pytest.raises(InputError, match=r"task.context.*>= 2"):
        from_json(text.replace('"context":7', '"context":1').encode())


def test_the_spec_survives_json_and_the_compiled_kernel_does_not_serve_it():
    SPEC.check()
    assert from_json(SPEC.to_json()) == SPEC
    assert SPEC.shape() == {"context": 7, "dim": 8, "labels": 5}
    assert unsupported_reason(SPEC) == "it answers every state of a stream, never the last alone"


def test_labels_of_a_stream_are_the_tokens_that_follow():
    at = np.asarray(label_positions(MODEL, draw()))
    np.testing.assert_array_equal(streams()[at], draw().labels)


def test_a_model_is_asked_at_the_query_and_reads_symbols_alone():
    blind = draw()._replace(labels=jnp.zeros_like(draw().labels))
    for model in (MODEL, Recurrent(layers=1, width=16, pairing="states")):
        params = Engine(replace(SPEC, model=model)).init(0).params
        logits = model.apply(params, draw())
        assert logits.shape == (N, 5)
        np.testing.assert_array_equal(logits, model.apply(params, blind))


def test_training_learns_to_answer():
    engine = Engine(SPEC)
    state = engine.train(engine.init(0), engine.data(0), jnp.uint32(1000))
    loss, accuracy = np.asarray(engine.measure(state.params, engine.suite(0)))[0, :2, 0]
    assert accuracy > 0.9 and loss < 0.5 * np.log(4)


@pytest.mark.parametrize(("context", "vocabulary"), [(2, 3), (4, 3), (4, 5)])
def test_the_predictor_is_the_share_among_all_streams_that_end_alike(context, vocabulary):
    """Brute force: every stream that the task can draw, all equally likely."""
    every = []
    for at, others in product(range(context - 1), product(range(1, vocabulary), repeat=context - 1)):
        every.append((*others[:at], TRIGGER, *others[at:], TRIGGER))
    symbols = np.asarray(every).T
    answers = np.asarray([stream[stream.index(TRIGGER) + 1] for stream in every])
    for seen in range(context + 1):
        ends = [stream[context - seen :] for stream in every]
        alike = {end: np.zeros(vocabulary) for end in ends}
        for end, answer in zip(ends, answers, strict=True):
            alike[end][answer] += 1
        expected = [alike[end] / alike[end].sum() for end in ends]
        np.testing.assert_allclose(trigger_probs(symbols, vocabulary, seen), expected, atol=1e-14)


def test_the_predictor_is_always_right_with_the_context_and_guesses_without():
    target = np.asarray(draw().target)
    assert (trigger_probs(streams(), 5).argmax(-1) == target).all()
    blind = trigger_probs(streams(), 5, seen=0)
    np.testing.assert_array_equal(blind, np.tile([0, 0.25, 0.25, 0.25, 0.25], (N, 1)))
    right = [trigger_probs(streams(), 5, seen)[np.arange(N), target].mean() for seen in range(8)]
    assert sorted(right) == right


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (([[0], [1], [0]], 2), "vocabulary = 2: must be at least 3"),
        (([[0], [3], [0]], 3), "symbols = 3: must be from 0 to 2"),
        (([[0], [1], [0]], 3, 3), "seen = 3: must be from 0 to 2, the length of the context"),
        (([[0], [1], [2]], 3), r"symbols = \[0, 1, 2\]: must show the trigger, 0, last, and once before"),
        (([[1], [0], [0]], 3), "must show the trigger, 0, last, and once before, but not in the slot before"),
        (([[0], [0], [1], [0]], 3), "must show the trigger, 0, last, and once before"),
        (([[1], [0]], 3), r"shape of symbols = \[2, 1\]: must be whole numbers"),
    ],
)
def test_the_predictor_refuses_what_is_no_stream_of_the_task(arguments, line):
    with pytest.raises(InputError, match=line) as found:
        trigger_probs(np.asarray(arguments[0]), *arguments[1:])
    assert "\n" not in str(found.value)
