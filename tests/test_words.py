"""Words of context-free languages: the automata, what the task draws, its split, and the exact predictors."""

import math
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import chisquare

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.evaluation.words import (
    cell_accuracy,
    next_cell_probs,
    next_symbol_probs,
    read_words,
    stack_accuracy,
)
from ebbtide.keys import Purpose, root
from ebbtide.models.cells import CellReadout
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.sources.pushdown import END, Configuration, Pushdown
from ebbtide.sources.words import Words, every_pairing
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.parsing import Parsing
from ebbtide.tasks.prompt import CellPrompt, FunctionPrompt
from ebbtide.training.kernels import unsupported_reason
from ebbtide.training.spec import Spec, from_json
from ebbtide.verify.words import LONGEST, every_word, word_probabilities

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Words(types=2, depth=3, seed=3), Parsing(context=12)
FRESH = replace(SOURCE, pool=0)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=Recurrent(layers=1, width=16, pairing="states", readout=CellReadout(cells=4)),
    batch=32,
    sequences=3_200,
    evaluators=("train", "held_out"),
    evaluation_sequences=50,
    keep_best=None,
)
LETTERS = "^$([)]"


@lru_cache
def draw(task: Parsing = TASK, source: Words = SOURCE, n: int = 2000) -> FunctionPrompt:
    key, split = root(2, Purpose.DATA), source.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, source, source.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def symbols_of(prompt: FunctionPrompt) -> np.ndarray:
    return np.asarray(prompt.inputs).argmax(-1)


def words_of(prompt: FunctionPrompt) -> list[tuple[int, ...]]:
    letters = np.asarray(prompt.latent["letters"])
    return [tuple(word[1 : n + 1]) for word, n in zip(symbols_of(prompt).T.tolist(), letters, strict=True)]


def test_automata_accept_what_their_definitions_say():
    dyck, blocks = Pushdown("dyck", 2, 2), Pushdown("blocks", 2, 2)
    palindromes, parity = Pushdown("palindromes", 2, 2), Pushdown("parity", 1, 1)
    accepted = {
        dyck: ["2 4", "2 3 5 4 3 5", "2 4 2 3 5 3 5 4"],
        blocks: ["2 4", "2 3 5 4 3 5"],
        palindromes: ["2 4 2", "2 3 4 3 2 3 4 3"],
        parity: ["2 2", "3", "2 3 3 2"],
    }
    refused = {
        dyck: ["2", "4 2", "2 5", "2 2 2 4 4 4", "2 3 4 5"],
        blocks: ["2 4 2 3 5 3 5 4", "3 3 3 5 5 5", "2 3 5"],
        palindromes: ["4", "2 3 4 2 3", "2 4 2 3", "2 2 2 4 2 2 2", "2 3 3 2"],
        parity: ["2", "2 3 2 2"],
    }
    for automaton in accepted:
        assert automaton.accepts([])
        assert all(automaton.accepts(map(int, word.split())) for word in accepted[automaton])
        assert not any(automaton.accepts(map(int, word.split())) for word in refused[automaton])
    assert Pushdown("dyck", 2, 2, pairing=(1, 0)).accepts([2, 5]) and not dyck.accepts([2, 5])
    trace = palindromes.trace([3, 2, 4, 2])
    assert trace is not None and trace[-1] == Configuration(2, (2,))
    with pytest.raises(InputError, match="symbol = 1: must be a letter, from 2 to 5"):
        dyck.step(dyck.start, END)


def test_one_type_of_blocks_is_a_n_b_n():
    words = every_word(Pushdown("blocks", 1, 4), 8)
    of_one_block = {word for word in words if "32" not in "".join(map(str, word))}  # ) before (: another block
    assert of_one_block == {(2,) * n + (3,) * n for n in range(1, 5)}
    assert len(words) == 1 + 2 + 4 + 8, "compositions of 1, 2, 3, 4"


@pytest.mark.parametrize("language", ["dyck", "blocks", "palindromes", "parity"])
@pytest.mark.parametrize("shifted", [False, True])
def test_responses_are_the_automatons_configurations(language, shifted):
    source = Words(language=language, types=3, depth=3)
    prompt = draw(replace(TASK, context=14, shifted=shifted), source, 100)
    assert isinstance(prompt, CellPrompt)
    responses = np.asarray(prompt.responses)
    for i, word in enumerate(words_of(prompt)):
        automaton = source.automaton()
        trace = automaton.trace(word)
        assert trace is not None and automaton.accepts(word)
        cells = [[one.state, *one.stack, *[0] * (3 - len(one.stack))] for one in trace]
        said = cells[1:] if shifted else cells
        np.testing.assert_array_equal(responses[: len(said), i], said)
        assert (responses[len(said) :, i] == 0).all() and (symbols_of(prompt)[len(word) + 1 :, i] == END).all()


@pytest.mark.parametrize("language", ["dyck", "blocks", "palindromes"])
def test_words_have_the_probabilities_of_the_walk(language):
    source = Words(language=language, types=2, depth=2, open=0.7, held_out=2**-31)
    expected = word_probabilities(source)
    assert math.isclose(sum(expected.values()), 1)
    drawn = words_of(draw(Parsing(context=LONGEST), source, 20_000))
    seen = np.asarray([drawn.count(word) for word in expected])
    assert seen.sum() == len(drawn)
    chances = np.asarray(list(expected.values()))
    often = chances > 5 / len(drawn)
    counts = [*seen[often], seen[~often].sum()]
    wanted = np.asarray([*chances[often], chances[~often].sum()]) * len(drawn)
    kept = wanted > 0
    assert chisquare(np.asarray(counts)[kept], wanted[kept]).pvalue > 1e-3


def marks_by_hand(word: tuple[int, ...], salt: list[int]) -> int:
    """FNV-1a over the letters, then the last step of MurmurHash3, in whole numbers."""
    mark = salt[0]
    for letter in word:
        mark = ((mark ^ letter) * 16777619) % 2**32
    mark ^= salt[1]
    mark = ((mark ^ mark >> 16) * 0x85EBCA6B) % 2**32
    mark = ((mark ^ mark >> 13) * 0xC2B2AE35) % 2**32
    return mark ^ mark >> 16


def test_no_word_is_both_trained_on_and_held_out():
    shown, held_out = words_of(draw()), words_of(draw(TASK.variant("held_out")))
    assert set(shown).isdisjoint(held_out)
    salt = np.asarray(SOURCE.build().salt).tolist()
    assert all(marks_by_hand(word, salt) >= 2**30 for word in shown)
    assert all(marks_by_hand(word, salt) < 2**30 for word in held_out)
    every = every_word(SOURCE.automaton(), 10)
    share = np.mean([marks_by_hand(word, salt) < 2**30 for word in every])
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(every))
    other = np.asarray(replace(SOURCE, seed=4).build().salt).tolist()
    both = np.mean([marks_by_hand(word, salt) < 2**30 and marks_by_hand(word, other) < 2**30 for word in every])
    assert abs(both - 1 / 16) < 0.02, "the split follows from the seed"


def test_all_lengths_come_in_the_tests_too():
    for name in ("train", "held_out"):
        counts = np.bincount(np.asarray(draw(TASK.variant(name)).latent["letters"]), minlength=13)
        assert (counts[6::2] > 200).all() and (counts[1::2] == 0).all()


def test_pairings_come_from_the_pool_or_anew():
    pool = replace(SOURCE, types=3, pool=4)
    prompt = draw(TASK, pool)
    known = np.asarray(pool.build().pairings)
    assert len(np.unique(known, axis=0)) == 4
    member = np.asarray(prompt.latent["member"])
    assert chisquare(np.bincount(member, minlength=4)).pvalue > 1e-3
    np.testing.assert_array_equal(np.asarray(prompt.latent["pairing"]), known[member])
    for task, source in ((TASK.variant("prior"), pool), (TASK, replace(pool, pool=0))):
        prompt = draw(task, source)
        pairings = np.asarray(prompt.latent["pairing"])
        assert len(np.unique(pairings, axis=0)) == 6 and (np.asarray(prompt.latent["member"]) == -1).all()
        accepted = [
            source.automaton(tuple(pairing)).accepts(word)
            for pairing, word in zip(pairings.tolist(), words_of(prompt), strict=True)
        ]
        assert all(accepted)


def test_a_word_depends_on_its_number_alone():
    whole, key, split = draw(), root(2, Purpose.DATA), SOURCE.sizes().split()
    some = compile_fast(lambda i: TASK.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.asarray([7, 3], jnp.uint32))
    np.testing.assert_array_equal(whole.responses[:, jnp.asarray([7, 3])], some.responses)


GOLDEN = {
    "train": ["[]((()))", "()(()([]))[]", "[()[]]", "()()((()))"],
    "held_out": ["()[]([])", "((())[()])", "(())([])", "[]"],
    "prior": ["()[]([])", "[[)(])", "(())([])", "[]"],
}


@pytest.mark.parametrize("name", ["train", "held_out", "prior"])
def test_the_words_are_pinned(name):
    words = words_of(draw(TASK.variant(name)))[:4]
    assert ["".join(LETTERS[symbol] for symbol in word) for word in words] == GOLDEN[name]


def test_next_symbols_are_the_targets_and_are_valid():
    task = Parsing(context=12, target="symbol")
    prompt = draw(task)
    np.testing.assert_array_equal(np.asarray(prompt.responses)[:-1], symbols_of(prompt)[1:])
    assert (np.asarray(prompt.responses)[-1] == END).all()
    valid = np.moveaxis(np.asarray(prompt.latent["valid"]), 1, 0)
    automaton = SOURCE.automaton()
    for i, word in enumerate(words_of(prompt)[:100]):
        for t, at in enumerate(automaton.trace(word) or ()):
            assert set(np.flatnonzero(valid[t, i])) == automaton.next_symbols(at)
        assert not valid[len(word) + 1 :, i].any()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": Functions()}, "source = 'functions': must be words for the task parsing"),
        ({"task": Dynamics(), "evaluators": ("train",)}, "source = 'words': must be functions"),
        ({"task": Parsing(context=4)}, "task.context = 4: there are 10 words of at most so many letters; at least"),
        ({"task": Parsing(target="symbol", shifted=True)}, "task.shifted = True: must be false for the target symbol"),
        ({"source": replace(SOURCE, language="parity"), "evaluators": ("prior",)}, "task.pairings = 'prior': must be"),
        ({"source": replace(SOURCE, language="palindromes", pool=0)}, "source.pool = 0: must be 1 for palindromes"),
        ({"source": replace(SOURCE, pool=3)}, "source.pool = 3: must be at most 2: there are no more pairings of 2 t"),
        ({"source": replace(SOURCE, types=8, pool=3)}, "source.types = 8: must be at most 7 where pairings are drawn"),
        ({"model": Transformer()}, "model.pairing = 'interleaved': must be states for the task parsing"),
        ({"model": replace(SPEC.model, readout=CellReadout(cells=3))}, "model.readout.cells = 3: must be 4"),
        ({"task": Parsing(target="symbol")}, "model.readout.cells = 4: needs a task of cells"),
        (
            {"model": replace(SPEC.model, width=14, readout=CellReadout("forced", cells=4))},
            "model.readout.cells = 4: must divide width = 14 for the forced decomposition",
        ),
        ({"model": Transformer(pairing="whole")}, "model.mask = 'causal': must be none for whole streams"),
        (
            {"model": Transformer(pairing="whole", mask="none"), "task": Parsing(target="symbol")},
            "model.pairing = 'whole': must be states for the task parsing",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, line):
    with pytest.raises(InputError) as found:
        replace(SPEC, **changes).check()
    assert line in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ('"types":2', '"types":0', r"source.types.*>= 1"),
        ('"depth":3', '"depth":0', r"source.depth.*>= 1"),
        ('"open":0.5', '"open":1.0', r"source.open.*< 1"),
        ('"held_out":0.25', '"held_out":0.0', r"source.held_out.*> 0"),
        ('"language":"dyck"', '"language":"lisp"', r"source.language"),
        ('"target":"configuration"', '"target":"tree"', r"task.target"),
        ('"cells":4', '"cells":1', r"model.readout.*>= 2"),
        ('"decomposition":"latent"', '"decomposition":"none"', r"model.readout"),
    ],
)
def test_a_hostile_field_is_named_in_one_line(before, after, line):
    text = SPEC.to_json().decode()
    assert before in text
    with pytest.raises(InputError, match=line) as found:
        from_json(text.replace(before, after).encode())
    assert "\n" not in str(found.value)


def test_the_spec_survives_json_and_the_kernel_refuses_cells():
    SPEC.check()
    assert from_json(SPEC.to_json()) == SPEC
    assert SPEC.shape() == {"context": 12, "dim": 6, "labels": 12}
    reads = replace(SPEC, model=Transformer(layers=1, width=16, heads=2, pairing="states"))
    assert unsupported_reason(reads) == "it has no loss of cells"
    whole = replace(reads.model, pairing="whole", mask="none")
    symbols = replace(reads, task=Parsing(target="symbol"))
    assert unsupported_reason(symbols) is None
    assert unsupported_reason(replace(symbols, model=whole)) == "whole streams are not served"


@pytest.mark.parametrize("source", [SOURCE, FRESH], ids=["own brackets", "every word its own"])
def test_the_best_prediction_has_the_lowest_loss(source):
    """The exact prediction is calibrated: its expected loss is its own entropy, and it is below that of rivals."""
    symbols = symbols_of(draw(TASK, source))
    own, other = (
        (None, every_pairing(2)) if source is SOURCE else (every_pairing(2), np.asarray([[0, 1], [1, 0], [1, 0]]))
    )
    best = next_symbol_probs(symbols, source, own)
    rivals = [next_symbol_probs(symbols, source, other), next_symbol_probs(symbols, replace(source, open=0.3), own)]

    def losses(probs: np.ndarray) -> np.ndarray:
        return -np.log(np.take_along_axis(probs[:-1], symbols[1:, :, None], axis=-1)[..., 0]).sum(0)

    entropy = -np.where(best > 0, best * np.log(np.where(best > 0, best, 1)), 0).sum(-1)[:-1].sum(0)
    difference = losses(best) - entropy
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))
    assert all(losses(one).mean() > losses(best).mean() + 0.01 for one in rivals)


def test_a_pairing_is_known_once_it_was_shown():
    symbols = np.asarray([[0, 2, 5, 2, 3, 4, 5, END, END]]).T
    probs = next_symbol_probs(symbols, FRESH, every_pairing(2))[:, 0]
    assert probs[1, 4] == pytest.approx(probs[1, 5]) and probs[1, 4] > 0.1, "before anything was closed"
    assert probs[3, 4] == 0 and probs[3, 5] > 0.1, "( is closed by ]"
    assert probs[4, 5] == 0 and probs[4, 4] > 0.1, "and so [ is by )"


def test_aligned_cells_are_known_and_shifted_ones_are_not():
    prompt = draw(replace(TASK, shifted=True))
    symbols, shifted = symbols_of(prompt), np.asarray(prompt.responses)
    np.testing.assert_array_equal(read_words(symbols, SOURCE).cells()[1:], shifted[:-1])
    probs = next_cell_probs(symbols, SOURCE)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-12)
    said = probs.argmax(-1)
    by_place, by_depth = cell_accuracy(said, shifted), stack_accuracy(said, shifted)
    expected = probs.max(-1)[..., 1:][shifted[..., 1:] > 0].mean()
    assert 0.5 < expected < 0.95 and (by_place < 0.95).all() and (by_depth[1:] < 0.95).all()
    np.testing.assert_array_equal(cell_accuracy(shifted, shifted), 1)
    np.testing.assert_array_equal(stack_accuracy(shifted, shifted), 1)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda s: read_words(s + 5, SOURCE), "symbols = 7: must be from 0 to 5"),
        (lambda s: read_words(s[1:], SOURCE), "must begin with 0, the start"),
        (
            lambda s: next_symbol_probs(s, SOURCE, np.zeros((0, 2), int)),
            r"shape of pairings = \[0, 2\]: must be \[pool",
        ),
        (lambda s: read_words(s[:1], SOURCE), r"shape of symbols = \[1, 1\]: must be \[slots, batch\], with two"),
    ],
)
def test_predictors_refuse_what_are_no_words(call, line):
    symbols: Any = np.asarray([[0, 2, 4, 1]]).T
    with pytest.raises(InputError, match=line):
        call(symbols)
