"""Models from outside: what they are given, what is measured of them, which strategies explain them, the monitor."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ebbtide as eb
from ebbtide.evaluation.evaluate import check_predict
from ebbtide.evaluation.evaluators import build_suite
from ebbtide.evaluation.fewshot_suite import Batch, part
from ebbtide.evaluation.metrics import mean_and_error, per_sequence
from ebbtide.evaluation.oracles import ORACLES
from ebbtide.evaluation.strategies import NEEDED, fractions, oracle_probabilities
from ebbtide.evaluation.summary import summarise
from ebbtide.keys import Purpose, root
from ebbtide.tasks.fewshot import METRICS
from ebbtide.training.watch import Watch
from ebbtide.verify import checks as verify

pytestmark = pytest.mark.usefixtures("quick_compile")

ROOT = Path(__file__).parents[1]
EXAMPLE, PAGE = ROOT / "examples/pytorch_model.py", ROOT / "docs/your-own-model.md"
TASK = eb.FewShot(context=2, burst=1, labels=eb.Shared(4))
SOURCE = eb.Gaussian(classes=64, exemplars=3, dim=16, noise=0.3, holdout_classes=8, holdout_exemplars=2)
HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="module")
def suite(quick_compile) -> eb.FewShotSuite:
    return eb.FewShotSuite(source=SOURCE, task=TASK, sequences=200)


class Scripted:
    """An oracle behind the interface of a model: it looks a prompt up by its examples, and answers for it. Two oracles
    are mixed by `share`: in probability, or (`by_prompt`) one of them on each prompt."""

    def __init__(self, suite: eb.FewShotSuite, one: str, other: str = "random", share: float = 1.0, by_prompt=False):
        self.known: dict[bytes, np.ndarray] = {}
        random = np.random.default_rng(0)
        for j, name in enumerate(suite.names):
            prompt = suite.prompt(name)
            key = root(7, Purpose.ORACLE, j)
            p, q = [
                jax.nn.softmax(ORACLES[x](jax.tree.map(jnp.asarray, prompt), suite.outputs, key), axis=-1)
                for x in (one, other)
            ]
            weight = random.random((suite.sequences, 1)) < share if by_prompt else share
            mixed = np.log(np.asarray(weight * p + (1 - weight) * q) + 1e-12)
            batch = suite.prompts(name)
            for x, y, z in zip(batch.examples, batch.labels, mixed, strict=True):
                self.known[x.tobytes() + y.tobytes()] = z

    def __call__(self, examples: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.stack([self.known[x.tobytes() + y.tobytes()] for x, y in zip(examples, labels, strict=True)])


def uniform(suite: eb.FewShotSuite):
    return lambda examples, labels: np.zeros((len(labels), suite.outputs))


def test_training_batches_are_the_stream_of_a_run_whatever_their_size(suite, draw):
    small, large = suite.batches(4, seed=3), next(suite.batches(8, seed=3))
    joined = Batch(*[np.concatenate(parts) for parts in zip(next(small), next(small), strict=True)])
    of_run = eb.Spec(seeds=eb.Seeds(data=3)).root(Purpose.DATA, 0)
    assert (jax.random.key_data(of_run) == jax.random.key_data(root(3, Purpose.DATA))).all()
    drawn = draw(TASK, SOURCE, sequences=8, seed=3)
    for batch in (joined, large, next(suite.batches(8, seed=3))):
        np.testing.assert_allclose(batch.examples, np.swapaxes(drawn.exemplars, 0, 1), rtol=1e-6)
        assert (batch.labels == drawn.labels.T).all() and (batch.target == drawn.target).all()
    later = next(suite.batches(4, seed=3, start=4))
    assert (later.examples == large.examples[4:]).all()
    assert not (next(suite.batches(8, seed=4)).examples == large.examples).all()
    assert large.examples.shape == (8, 3, 16) and large.examples.dtype == np.float32 and large.examples.flags.writeable
    assert large.labels.shape == (8, 2) and large.labels.dtype == large.target.dtype == np.int64


def test_evaluation_prompts_are_those_of_a_run_and_a_model_cannot_change_them(suite):
    run = build_suite(("flip",), TASK, SOURCE, suite._bank, sequences=200, seed=0)
    before = suite.prompts("flip")
    np.testing.assert_array_equal(before.examples, np.swapaxes(run.of("flip").exemplars, 0, 1))

    def spoil(examples, labels):
        examples[:], labels[:] = 0, 0
        return np.zeros((len(labels), suite.outputs))

    eb.evaluate(spoil, suite)
    np.testing.assert_array_equal(suite.prompts("flip").examples, before.examples)


def metrics_of(suite: eb.FewShotSuite, name: str, logits: np.ndarray) -> np.ndarray:
    """Mean and standard error of every metric [metric, 2], without the interface for outside models."""
    prompt = jax.tree.map(jnp.asarray, suite.prompt(name))
    return np.asarray(mean_and_error(per_sequence(jnp.asarray(logits), prompt)))


def test_the_table_is_what_the_metrics_say(suite):
    """The same numbers through the interface for outside models as without it; oracles score as in the truth table."""
    for oracle, scores in (("ICL", {"icl": 1, "flip": 1, "iwl": 0}), ("IWL", {"iwl": 1, "flip": 0, "ciwl": 1})):
        model = Scripted(suite, oracle, "random", 0.9)
        found = eb.evaluate(model, suite, batch=64)
        for name, score in scores.items():
            assert found[name] == score
            expected = metrics_of(suite, name, model(*suite.prompts(name)[:2]))
            for metric, (mean, error) in zip(METRICS, expected, strict=True):
                assert found.row(name, metric).mean == pytest.approx(mean, abs=1e-5)
                assert found.row(name, metric).error == pytest.approx(error, abs=1e-5)


def test_batches_change_nothing_and_have_the_size_asked_for(suite):
    sizes = []
    weights = np.random.default_rng(1).normal(size=(16, suite.outputs))

    def predict(examples, labels):
        sizes.append(len(labels))
        return examples[:, -1] @ weights

    one, other = eb.evaluate(predict, suite, batch=200), eb.evaluate(predict, suite, batch=64)
    assert set(sizes[:7]) == {200} and sizes[7:] == [64, 64, 64, 8] * 7
    for a, b in zip(one.table, other.table, strict=True):
        assert a[:2] == b[:2] and a.mean == pytest.approx(b.mean, rel=1e-5) and a.error == pytest.approx(b.error)
    for name, fraction in one.fractions.items():
        assert fraction == pytest.approx(other.fractions[name], abs=1e-3)


def test_a_uniform_guess_is_at_chance_by_every_metric(suite):
    """Chance levels are what logits of zero give; by the accuracies, where zeros tie, what 1/n and 1/|C| say."""
    found = eb.evaluate(uniform(suite), suite)
    assert [row.metric for row in found.table[:5]] == list(METRICS)
    for row in found.table:
        if "accuracy" not in row.metric:
            assert row.mean == pytest.approx(row.chance, rel=1e-5), row
    assert found.row("iwl", "accuracy").chance == pytest.approx(1 / 6)
    assert found.row("icl").chance == 0.5 and found.row("icl", "loss").chance == pytest.approx(np.log(6))
    assert found.fractions["random"].share > 0.99


class Tensor:
    """What makes a PyTorch tensor, on a device and with a gradient: it refuses to become an array as it is."""

    def __init__(self, values: Any, done: tuple[str, ...] = ()):
        self.values, self.done = values, done

    def __array__(self, *a: Any, **k: Any) -> np.ndarray:
        raise TypeError("Can't convert CUDA tensor to numpy")

    def _then(self, step: str) -> "Tensor":
        return Tensor(self.values, (*self.done, step))

    def detach(self) -> "Tensor":
        return self._then("detach")

    def cpu(self) -> "Tensor":
        return self._then("cpu")

    def float(self) -> "Tensor":
        return self._then("float")

    def numpy(self) -> np.ndarray:
        assert self.done == ("detach", "cpu", "float")
        return np.asarray(self.values, np.float32)


def test_answers_may_come_from_numpy_jax_or_pytorch(suite):
    weights = np.random.default_rng(1).normal(size=(16, suite.outputs)).astype(np.float32)
    kinds = (np.float64, jnp.asarray, Tensor, list)
    found = [eb.evaluate(lambda e, y, k=k: k(e[:, -1] @ weights), suite).table for k in kinds]
    assert found[0] == found[1] == found[2] == found[3]
    half = eb.evaluate(lambda e, y: jnp.asarray(e[:, -1] @ weights, jnp.bfloat16), suite)
    assert half.row("icl", "loss").mean == pytest.approx(found[0][METRICS.index("loss") + 5].mean, abs=0.02)


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_explains_all_of_itself(suite, oracle):
    found = eb.evaluate(Scripted(suite, oracle), suite).fractions
    assert set(found) == set(ORACLES) and sum(f.share for f in found.values()) == pytest.approx(1)
    assert found[oracle].share > 0.99, found


@pytest.mark.parametrize(("one", "other"), [("ICL", "IWL"), ("IWL", "CIWL"), ("ICL", "CIWL"), ("CIWL", "random")])
def test_a_mixture_in_probability_gets_its_weights_back(suite, one, other):
    found = eb.evaluate(Scripted(suite, one, other, 0.6), suite).fractions
    assert found[one].share == pytest.approx(0.6, abs=0.01) and found[other].share == pytest.approx(0.4, abs=0.01)


def test_a_mixture_over_prompts_gets_its_weights_back_up_to_the_standard_error(suite):
    found = eb.evaluate(Scripted(suite, "ICL", "CIWL", 0.6, by_prompt=True), suite).fractions
    assert 0.01 < found["ICL"].error < 0.05
    for name, share in (("ICL", 0.6), ("CIWL", 0.4)):
        assert abs(found[name].share - share) < 4 * found[name].error
    assert all(found[name].share < 0.05 for name in ("majority", "last", "IWL", "random"))


def test_the_standard_error_is_the_spread_over_draws_of_prompts():
    """Forty samples of models that play ICL on 60 % of their prompts, IWL on 30 % and guess on 10 %."""
    random = np.random.default_rng(0)
    n, labels = 400, 5
    found = []
    for _ in range(40):
        icl, iwl = random.integers(labels, size=(2, n))
        said = np.select([(u := random.random(n)) < 0.6, u < 0.9], [icl, iwl], random.integers(labels, size=n))
        rows = {"ICL": np.eye(labels)[icl], "IWL": np.eye(labels)[iwl], "random": np.full((n, labels), 1 / labels)}
        found.append(list(fractions(np.eye(labels)[said], rows).values()))
    shares, errors = np.moveaxis(np.array(found), -1, 0)
    assert np.abs(shares.mean(axis=0) - [0.6, 0.3, 0.1]).max() < 0.02
    assert shares.std(axis=0, ddof=1) == pytest.approx(errors.mean(axis=0), rel=0.35)


def test_the_weights_are_the_most_likely_ones():
    """Against a search over the whole simplex, for a model that is no mixture."""
    random = np.random.default_rng(2)
    q = random.dirichlet(np.full(4, 0.3), size=(3, 30))
    p = random.dirichlet(np.full(4, 0.5), size=30)
    found = fractions(p, dict(zip("abc", q, strict=True)))

    def likelihood(w: np.ndarray) -> float:
        return float((p * np.log(np.tensordot(w, q, axes=1))).sum(axis=1).mean())

    grid = [np.array([a, b, 100 - a - b]) / 100 for a in range(101) for b in range(101 - a)]
    with np.errstate(divide="ignore"):
        best = max(likelihood(w) for w in grid)
    assert likelihood(np.array([f.share for f in found.values()])) >= best - 1e-6


def test_oracles_that_never_differ_share_an_entry_and_too_few_prompts_tell_nothing():
    same = {"IWL": np.full((9, 4), 0.25), "ICL": np.eye(4)[np.arange(9) % 4], "random": np.full((9, 4), 0.251)}
    found = fractions(np.eye(4)[np.arange(9) % 4], same)
    assert list(found) == ["IWL/random", "ICL"] and found["ICL"].share == pytest.approx(1.0)
    three = {name: np.array([row]) for name, row in (("a", [1.0, 0]), ("b", [0, 1.0]), ("c", [0.5, 0.5]))}
    assert fractions(np.array([[1.0, 0]]), three) == {}


@pytest.mark.parametrize("name", verify.TASKS)
def test_icl_and_flip_determine_every_weight(name):
    """Of each of the tasks that `ebbtide verify` checks: the oracles' answers are independent, and complete."""
    task, outputs = verify.TASKS[name], verify.TASKS[name].outputs(verify.SOURCE)
    run = build_suite(NEEDED, task, verify.SOURCE, verify.SOURCE.build(), sequences=100, seed=0)
    asked = [oracle_probabilities(part(run.of(each), 0, 100), outputs, ORACLES) for each in NEEDED]
    rows = {oracle: np.concatenate([one.oracles[oracle] for one in asked]) for oracle in ORACLES}
    for oracle in ORACLES:
        assert fractions(rows[oracle], rows)[oracle].share > 0.99
        assert (rows[oracle] >= 0).all() and np.allclose(rows[oracle].sum(axis=1), 1)


def test_with_several_labels_per_class_any_counts_and_strategies_cannot_be_told():
    task = eb.FewShot(labels=eb.Polysemy(2))
    suite = eb.FewShotSuite(source=SOURCE, task=task, sequences=40, evaluators=("iwl", *NEEDED))
    model = Scripted(suite, "IWL")
    other_label = np.arange(suite.outputs) ^ 1
    found = eb.evaluate(lambda e, y: model(e, y)[:, other_label], suite)
    assert found["iwl"] == 1.0 and found.row("iwl").chance == pytest.approx(2 / suite.outputs)
    assert found.fractions == {} and "one label per class" in str(found)


def test_a_suite_without_the_evaluators_that_tell_strategies_says_so():
    suite = eb.FewShotSuite(source=SOURCE, task=TASK, sequences=20, evaluators="icl")
    found = eb.evaluate(uniform(suite), suite)
    assert found.fractions == {} and "need the evaluators icl, flip" in str(found)


def test_findings_are_printed_as_two_tables(suite):
    text = str(eb.evaluate(Scripted(suite, "ICL"), suite))
    lines = text.splitlines()
    assert lines[0].split() == ["evaluator", "read", "by", "mean", "±", "s.e.", "chance", "loss", "context", "mass"]
    assert [line.split()[0] for line in lines[1:8]] == list(suite.names)
    assert "icl           in context accuracy  1.000   0.000   0.500" in text
    assert lines[9].split() == ["strategy", "explains", "±", "s.e."] and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[10:]] == list(ORACLES)


@pytest.fixture(scope="module")
def small(quick_compile) -> eb.FewShotSuite:
    return eb.FewShotSuite(source=SOURCE, task=TASK, sequences=100, evaluators=("icl", "iwl", "flip"))


def test_the_monitor_keeps_history_best_and_summary(small):
    """A model that goes from chance to ICL and from there to IWL: transience, by hand."""
    watch = eb.Monitor(small)
    plan = [(0, "random", 2.0), (10, "ICL", 1.5), (20, "ICL", 1.2), (30, "IWL", 0.9), (40, "IWL", 0.5)]
    improved = []
    for at, oracle, loss in plan:
        record = watch(at, Scripted(small, oracle), train_loss=loss)
        improved.append(watch.improved)
        assert record is watch.history[-1] and record["icl"] == record.findings["icl"] and not watch.stop
    assert improved == [True, True, False, False, False]
    assert watch.best is not None and watch.best is watch.history[1] and watch.best["icl"] == 1.0
    curves = watch.curves()
    assert curves["sequences"].tolist() == [0, 10, 20, 30, 40] and curves["icl"].shape == (1, 5)
    assert curves["iwl"][0, 3] == 1.0
    chance = {row.evaluator: row.chance for row in watch.history[0].findings.table if row.headline}
    by_hand = {name: float(value[0]) for name, value in summarise(curves, chance).items()}
    found = watch.summary()
    assert found.keys() == by_hand.keys() and all(np.array_equal(found[k], by_hand[k], equal_nan=True) for k in found)
    assert found["transience"] > 0.2 and found["crossover_sequences"] == 30 and found["flip_final"] == 0
    assert found["train_loss_final"] < found["train_loss_at_peak"] and np.isnan(found["ciwl_final"])


def test_the_monitor_stops_by_the_rule_of_a_run(small):
    rule = eb.EarlyStopping(patience=20, evaluator="iwl", window=2, margin=0.01)
    watch, run = eb.Monitor(small, stopping=rule, keep_best="iwl"), Watch(1, rule)
    stops = []
    for at, oracle in enumerate(["random", "CIWL", "IWL", "IWL", "IWL", "ICL", "IWL", "IWL"]):
        record = watch(10 * at, Scripted(small, oracle))
        run.update_stopping(np.array([record["iwl"]], np.float32), 10 * at)
        assert watch.stop == run.stopped[0]
        stops.append(watch.stop)
    assert stops == [False] * 5 + [True] * 3  # highest mean of two at 30, and 20 later no rise
    assert watch.best is watch.history[2]
    never = eb.Monitor(small)
    for at in range(3):
        never(at, uniform(small))
    assert not never.stop and eb.Monitor(small).best is None and not eb.Monitor(small).improved


BAD_SUITES = [
    ({"suite": "fewshots"}, "suite", "fewshots"),
    ({"evaluators": ("icl", "iccl")}, "evaluators", "iccl"),
    ({"evaluators": "flp"}, "evaluators", "flp"),
    ({"evaluators": ()}, "evaluators", []),
    ({"task": eb.FewShot(context=3, burst=1)}, "task.context", 3),
    ({"task": eb.FewShot(context=2, burst=2)}, "task.burst", 2),
    ({"source": eb.Gaussian(classes=3)}, "source.classes", 3),
    ({"source": eb.Gaussian(holdout_classes=0)}, "source.holdout_classes", 0),
    ({"sequences": 1}, "sequences", 1),
    ({"seed": -1}, "seed", -1),
    ({"batch": 0}, "batch", 0),
]


@pytest.mark.parametrize(("options", "field", "value"), BAD_SUITES, ids=[f"{f}={v}" for _, f, v in BAD_SUITES])
def test_a_suite_that_cannot_be_made_is_told_in_one_line(one_line, options, field, value):
    for call in (lambda: eb.evaluate(lambda e, y: e, **options), lambda: eb.Monitor(**options)):
        with pytest.raises(eb.InputError) as caught:
            call()
        one_line(caught, field, value)


def test_misspelt_names_are_guessed():
    with pytest.raises(eb.InputError, match=r"did you mean 'fewshot'\?"):
        eb.evaluate(lambda e, y: e, "fewshots")
    with pytest.raises(eb.InputError, match=r"did you mean 'icl'\?"):
        eb.evaluate(lambda e, y: e, evaluators=("iccl",))


def spoilt(value: float):
    def predict(examples: np.ndarray, labels: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(labels), 6))
        logits[3:5, 2] = value
        return logits

    return predict


def probabilities(rows: int) -> np.ndarray:
    weights = (
        np.random.default_rng(0).random((rows, 6)).astype(np.float16)
    )  # rounded: rows sum to 1 within a thousandth
    return weights / weights.sum(axis=1, keepdims=True)


BAD_LOGITS = [
    (lambda e, y: np.zeros((len(y), 5)), "shape of predict's logits", [100, 5], "must be [100, 6]: [batch, outputs]"),
    (lambda e, y: np.zeros((7, 6)), "shape of predict's logits", [7, 6], "must be [100, 6]"),
    (lambda e, y: np.zeros((len(y), 3, 6)), "shape of predict's logits", [100, 3, 6], "must be [100, 6]"),
    (lambda e, y: np.zeros((6, len(y))), "shape of predict's logits", [6, 100], "must be [100, 6]"),
    (lambda e, y: 0.0, "shape of predict's logits", [], "must be [100, 6]"),
    (lambda e, y: None, "type of predict's logits", "NoneType", "real numbers"),
    (lambda e, y: [["a"] * 6] * len(y), "type of predict's logits", "list", "real numbers"),
    (lambda e, y: [[0.0], [0.0, 1.0]], "type of predict's logits", "list", "real numbers"),
    (lambda e, y: np.zeros((len(y), 6), complex), "type of predict's logits", "complex128", "real numbers"),
    (
        lambda e, y: np.zeros((len(y), 4)),
        "shape of predict's logits",
        [100, 4],
        "2 of the 6 outputs are reserved labels",
    ),
    (lambda e, y: np.full((len(y), 6), 1 / 6), "predict's logits", "probabilities (rows that sum to 1)", "logarithm"),
    (lambda e, y: probabilities(len(y)), "predict's logits", "probabilities (rows that sum to 1)", "must be logits"),
    (lambda e, y: np.eye(6)[np.arange(len(y)) % 6], "predict's logits", "one-hot rows", "give 100 times them"),
    (spoilt(-np.inf), "predict's logits", -np.inf, "finite, is not for 2 of 100 prompts (evaluator icl); to mask"),
    (spoilt(1e300), "predict's logits", np.inf, "finite, is not for 2 of 100 prompts"),
]


@pytest.mark.parametrize(("predict", "field", "value", "allowed"), BAD_LOGITS, ids=[str(x[2]) for x in BAD_LOGITS])
def test_logits_that_cannot_be_used_are_told_in_one_line(one_line, small, predict, field, value, allowed):
    with pytest.raises(eb.InputError) as caught:
        eb.evaluate(predict, small)
    one_line(caught, field, value)
    assert allowed in caught.value.allowed and "icl" in caught.value.allowed


def test_the_logarithm_of_probabilities_is_logits(small):
    plain = eb.evaluate(lambda e, y: np.log(probabilities(len(y)).astype(np.float32)), small)
    moved = eb.evaluate(lambda e, y: np.log(probabilities(len(y)).astype(np.float32)) + 3, small)
    assert plain["icl"] == moved["icl"]
    watch = eb.Monitor(small)
    with pytest.raises(eb.InputError, match="one-hot"):
        watch(0, lambda e, y: np.eye(6)[:1].repeat(len(y), 0))


def test_what_cannot_be_called_is_told_in_one_line(one_line):
    with pytest.raises(eb.InputError, match=r"examples, labels") as caught:
        check_predict(object())
    one_line(caught, "predict", "object")


def test_a_nan_is_told_in_one_line(small):
    with pytest.raises(eb.InputError, match=r"^predict's logits = nan: must be finite, is not for 2 of 100 prompts"):
        eb.evaluate(spoilt(np.nan), small)
    watch = eb.Monitor(small)
    with pytest.raises(eb.InputError):
        watch(0, spoilt(np.nan))
    assert watch.history == []


def test_other_input_that_cannot_be_used_is_told_in_one_line(one_line, small):
    watch = eb.Monitor(small)
    watch(10, uniform(small))
    bad = [
        (lambda: eb.evaluate(uniform(small), small, seed=3), "seed", 3),
        (lambda: eb.Monitor(small, task=TASK), "task", TASK),
        (lambda: eb.Monitor(small, keep_best="ciwl"), "keep_best", "ciwl"),
        (lambda: eb.Monitor(small, stopping=eb.EarlyStopping(10, "train")), "stopping.evaluator", "train"),
        (lambda: eb.Monitor(small, stopping=eb.EarlyStopping(0)), "stopping.patience", 0),
        (lambda: watch(10, uniform(small)), "sequences", 10),
        (lambda: watch.summary(), "records of the monitor", 1),
        (lambda: small.batches(0), "size", 0),
        (lambda: small.batches(4, start=-1), "start", -1),
        (lambda: small.prompts("ciwl"), "evaluator", "ciwl"),
    ]
    for call, field, value in bad:
        with pytest.raises(eb.InputError) as caught:
            call()
        one_line(caught, field, value)
    with pytest.raises(KeyError):
        _ = watch.history[0]["ciwl"]


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_runs_as_it_stands(capsys):
    """Every Python block, one after the other in one place; the PyTorch one where there is a PyTorch."""
    place: dict[str, Any] = {}
    blocks = python_blocks()
    assert len(blocks) == 4 and ["import torch" in block for block in blocks] == [False] * 3 + [True]
    for block in blocks[: 4 if HAS_TORCH else 3]:
        exec(compile(block, str(PAGE), "exec"), place)
    assert place["found"].fractions["ICL"].share > 0.99 and place["watch"].summary()["iwl_final"] > 0.3
    shown = re.findall(r"```\n(evaluator .*?)```", PAGE.read_text(), re.DOTALL)[0].rstrip()
    assert str(place["found"]) == shown and shown in capsys.readouterr().out


def test_the_example_uses_what_there_is():
    """Names of ebbtide and attributes of its objects, in the example that may not be able to run here."""
    found = [node for node in ast.walk(ast.parse(EXAMPLE.read_text())) if isinstance(node, ast.Attribute)]
    used = {(node.value.id, node.attr) for node in found if isinstance(node.value, ast.Name)}
    of_monitor = set(dir(eb.Monitor(source=SOURCE, evaluators="icl", sequences=2)))
    assert {name for owner, name in used if owner == "eb"} <= set(eb.__all__)
    assert {name for owner, name in used if owner == "watch"} <= of_monitor
    assert {"FewShotSuite", "Monitor", "evaluate", "EarlyStopping"} <= {name for owner, name in used if owner == "eb"}


def test_the_loop_of_the_example_in_jax(small):
    """The example's loop with a model in JAX that attends to the context: it learns ICL, is kept and stopped."""

    def logits(params, examples, labels):
        query = examples[:, -1] @ params["q"]
        score = jnp.einsum("bd,bcd->bc", query, examples[:, :-1])
        return 8 * jnp.einsum("bc,bcl->bl", jax.nn.softmax(score), jax.nn.one_hot(labels, small.outputs))

    def loss(params, batch):
        z = jax.nn.log_softmax(logits(params, batch.examples, batch.labels))
        return -jnp.take_along_axis(z, batch.target[:, None], axis=1).mean()

    step, predict = jax.jit(jax.value_and_grad(loss)), jax.jit(logits)
    params, best, losses = {"q": jnp.zeros((16, 16))}, None, []
    watch = eb.Monitor(small, stopping=eb.EarlyStopping(patience=1600, margin=0.01))
    for i, batch in enumerate(small.batches(32)):
        if i % 25 == 0:
            watch(32 * i, lambda e, y, p=params: predict(p, e, y), train_loss=np.mean(losses) if losses else np.nan)
            losses = []
            if watch.improved:
                best = params
            if watch.stop or i >= 1000:
                break
        value, grad = step(params, batch)
        losses.append(float(value))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad)
    assert watch.best is not None and watch.stop and watch.history[0]["icl"] < 0.7 < 0.9 < watch.best["icl"]
    assert watch.history[0].findings.fractions["ICL"].share < 0.1 < 0.8 < watch.best.findings.fractions["ICL"].share
    assert eb.evaluate(lambda e, y: predict(best, e, y), small) == watch.best.findings


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
def test_the_example_runs_in_pytorch(capsys):
    spec = importlib.util.spec_from_file_location("pytorch_model", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    watch = example.main(2 * example.EVERY)
    assert watch.history[-1]["icl"] > 0.65 and len(watch.history) == 3
    assert "the best model" in capsys.readouterr().out
