"""Exact checks without training, which take seconds."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from msgspec.structs import replace

from ebbtide.checks import Check
from ebbtide.compile import compile_fast
from ebbtide.evaluation.evaluators import Suite, build_suite
from ebbtide.evaluation.oracles import expected, truth_table
from ebbtide.keys import Purpose, root
from ebbtide.machine import cores
from ebbtide.models.transformer import Transformer
from ebbtide.sources.bank import Bank
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import NAMES, FewShot
from ebbtide.tasks.labels import PerSequence, Shared
from ebbtide.tasks.prompt import Tag
from ebbtide.training.optimizer import SGD, Adam
from ebbtide.verify.chains import CHAIN_CHECKS
from ebbtide.verify.conversion import conversion, inexact_conversion
from ebbtide.verify.coverage import interval_coverage
from ebbtide.verify.functions import FUNCTION_CHECKS
from ebbtide.verify.mixtures import MIXTURE_CHECKS
from ebbtide.verify.recurrences import RECURRENCE_CHECKS
from ebbtide.verify.urns import URN_CHECKS
from ebbtide.verify.words import WORD_CHECKS

Table = dict[str, dict[str, tuple[float, float]]]


SOURCE = Gaussian(classes=96, exemplars=4, dim=64, noise=0.1, holdout_classes=16)
TASKS = {
    "2 pairs, own labels": FewShot(),
    "2 pairs, 8 shared labels": FewShot(labels=Shared(8), distinct="label"),
    "8 pairs, burst 4, own labels": FewShot(context=8, burst=4),
}
SEQUENCES = 1000


@cache
def bank() -> Bank:
    """The bank of `SOURCE`, cached for all checks."""
    return SOURCE.build()


def calibration(name: str) -> tuple[list[Check], Table]:
    """The checks of a calibration task's evaluation prompts, and the oracles' scores on them."""
    task = TASKS[name]
    task.check(SOURCE)
    suite = build_suite(NAMES, task, SOURCE, bank(), sequences=SEQUENCES, seed=0)
    table = truth_table(suite, task.outputs(SOURCE))
    return [truth(name, task, suite, table), sequences(name, task, suite)], table


def truth(name: str, task: FewShot, suite: Suite, table: Table) -> Check:
    """Every oracle on every evaluator compared with theory, within 4.5 standard errors (exactly where theory says 0 or
    1)."""
    outputs = task.outputs(SOURCE)
    chance, wrong, count = suite.chance(outputs), [], 0
    for oracle, row in table.items():
        for evaluator, (mean, _) in row.items():
            theory = expected(oracle, evaluator, chance[evaluator], outputs)
            if theory is None:
                continue
            count += 1
            if abs(mean - theory) > 4.5 * math.sqrt(theory * (1 - theory) / SEQUENCES):
                wrong.append(f"{oracle} on {evaluator}: {mean:.3f}, theory {theory:.3f}")
    return Check(f"truth table, {name}", not wrong, "; ".join(wrong) or f"{count} entries as theory says")


def sequences(name: str, task: FewShot, suite: Suite) -> Check:
    """Checks of the structure of the evaluation prompts."""
    train, flip, iwl, ciwl, pair = (suite.of(n) for n in ("train", "flip", "iwl", "ciwl", "icl"))
    facts = {
        "train: query class in context `burst` times": (train.tags == Tag.BURSTY).sum(0) == task.burst,
        "train: target shown in context": (train.labels == train.target).any(0),
        "flip: target is not the query's own label": flip.target != flip.own_label,
        "icl: labels are 0 and 1": (pair.labels.min(0) == 0) & (pair.labels.max(0) == 1),
        "iwl: query's label not in context": ~(iwl.labels == iwl.target).any(0),
        "iwl: query's class not in context": ~(iwl.classes[:-1] == iwl.classes[-1]).any(0),
        "ciwl: query's label in context exactly once": (ciwl.labels == ciwl.target).sum(0) == 1,
        "ciwl: query's class not in context": ~(ciwl.classes[:-1] == ciwl.classes[-1]).any(0),
    }
    wrong = [fact for fact, holds in facts.items() if not bool(jnp.all(holds))]
    return Check(f"sequences, {name}", not wrong, "; ".join(wrong) or f"{len(facts)} facts x {SEQUENCES} sequences")


def holdout_pairs() -> Iterator[Check]:
    """Checks of labels drawn per sequence with some pairs of labels held out: the row of `icl_pairs`, and that training
    never shows a held-out pair."""
    labels = PerSequence(5, holdout_pairs=2)
    task = FewShot(labels=labels)
    suite = build_suite(("train", "icl", "icl_pairs"), task, SOURCE, bank(), sequences=SEQUENCES, seed=0)
    outputs = task.outputs(SOURCE)
    rows = {
        oracle: {name: results for name, results in row.items() if name != "train"}
        for oracle, row in truth_table(suite, outputs).items()
    }
    name = "held-out pairs of labels"
    yield truth(name, task, suite, rows)
    seen = {e: {tuple(sorted(p)) for p in np.asarray(suite.of(e).labels).T.tolist()} for e in ("train", "icl_pairs")}
    apart = (
        len(seen["train"]) == labels.pairs() - 2
        and len(seen["icl_pairs"]) == 2
        and not seen["train"] & seen["icl_pairs"]
    )
    yield Check(f"sequences, {name}", apart, ", ".join(f"{e}: {len(pairs)} pairs" for e, pairs in seen.items()))


def batch_invariance() -> Check:
    """Example i is the same alone, in another batch and at another place."""
    task, key = FewShot(labels=Shared(8), p_bursty=0.5), root(3, Purpose.DATA)
    split = SOURCE.sizes().split()
    drawn = bank()
    sample = compile_fast(lambda index: task.sample(key, index, SOURCE, drawn, split))
    index = jnp.arange(64, dtype=jnp.uint32)
    whole = sample(index)
    halves = [sample(part[::-1]) for part in (index[:21], index[21:])]
    again = jax.tree.map(
        lambda a, b: jnp.concatenate([a[..., ::-1], b[..., ::-1]], -1),
        *[(p.labels, p.target, p.classes, p.indices) for p in halves],
    )
    same = all(
        bool((a == b).all())
        for a, b in zip((whole.labels, whole.target, whole.classes, whole.indices), again, strict=True)
    )
    return Check("stream independent of batch size", same, "64 examples, batches of 64, 21 and 43")


def initial_loss() -> Check:
    """The untrained loss is ln(labels) plus a small excess, and in-context accuracy is at chance."""
    task, model = FewShot(), Transformer()
    source = replace(SOURCE, classes=1600)
    bank = source.build()
    suite = build_suite(("icl",), task, source, bank, sequences=2000, seed=1)
    outputs = task.outputs(source)

    def untrained() -> Array:
        params = model.init(root(0, Purpose.INIT), context=task.context, dim=source.dim, labels=outputs)
        return suite.measure(lambda prompt: model.apply(params, prompt))

    measured = np.asarray(compile_fast(untrained)())[0, :, 0]
    excess, accuracy = measured[0] - math.log(outputs), measured[2]
    passed = 0 <= excess < 1 and abs(accuracy - 0.5) < 4.5 * math.sqrt(0.25 / 2000)
    detail = f"loss {measured[0]:.2f} = ln {outputs} + {excess:.2f}; ICL {accuracy:.3f}"
    return Check("loss and ICL at initialisation", bool(passed), detail)


def causality() -> Check:
    """A later token changes nothing before it: the gradient is exactly 0."""
    task, model = FewShot(context=4, burst=2), Transformer(width=16, heads=2)
    drawn = bank()
    split, index = SOURCE.sizes().split(), jnp.arange(4, dtype=jnp.uint32)
    prompt = compile_fast(lambda: task.sample(root(0, Purpose.DATA), index, SOURCE, drawn, split))()
    outputs = task.outputs(SOURCE)

    def before_query(exemplars: Array) -> Array:
        params = model.init(root(0, Purpose.INIT), context=4, dim=SOURCE.dim, labels=outputs)
        seen = {}

        def tap(name: str, value: Array) -> Array:
            seen[name] = value
            return value

        model.apply(params, prompt._replace(exemplars=exemplars), tap)
        return jnp.square(seen["blocks.0.hook_resid_post"][:-1]).sum()

    gradient = compile_fast(jax.grad(before_query))(prompt.exemplars)
    leak, used = float(jnp.abs(gradient[-1]).max()), float(jnp.abs(gradient[:-1]).max())
    return Check("causal mask", leak == 0 and used > 0, f"query's gradient on earlier tokens {leak}, theirs {used:.2g}")


def descent() -> Check:
    """One step of every optimiser lowers a quadratic loss (in one public code base it raises it)."""
    start = {"x": jnp.asarray([1.0, -2.0])}
    wrong = []
    for optimizer in (Adam(lr=1e-2), SGD(lr=1e-2), SGD(lr=1e-2, momentum=0.9)):
        state = optimizer.init(start)
        after, _ = optimizer.update(start, state, start, jnp.uint32(0), 10)
        if not float(jnp.square(after["x"]).sum()) < 5.0:
            wrong.append(type(optimizer).__name__)
    return Check("optimisers descend", not wrong, ", ".join(wrong) or "Adam, SGD, SGD with momentum")


def exemplar_match() -> Check:
    """Share of queries that are an exemplar of their context: 1/E, 0 and 1 by exemplar_draw."""
    drawn, split, n = bank(), SOURCE.sizes().split(), 20_000
    rates = {}
    for draw, theory in (("independent", 1 / SOURCE.exemplars), ("without_replacement", 0.0), ("match", 1.0)):
        task = replace(FewShot(), exemplar_draw=draw)
        index = jnp.arange(n, dtype=jnp.uint32)
        prompt = compile_fast(partial(task.sample, root(0, Purpose.DATA), index, SOURCE, drawn, split))()
        same = (prompt.indices[:-1] == prompt.indices[-1]) & (prompt.tags[:-1] == Tag.BURSTY)
        rates[draw] = (float(same.any(0).mean()), theory)
    passed = all(abs(rate - p) <= 4.5 * math.sqrt(p * (1 - p) / n) for rate, p in rates.values())
    return Check("exemplar draws", passed, ", ".join(f"{k} {v[0]:.3f}" for k, v in rates.items()))


SINGLE: tuple[Callable[[], Check], ...] = (
    batch_invariance,
    exemplar_match,
    initial_loss,
    causality,
    descent,
    interval_coverage,
    *FUNCTION_CHECKS,
    *MIXTURE_CHECKS,
    *CHAIN_CHECKS,
    *URN_CHECKS,
    *RECURRENCE_CHECKS,
    *WORD_CHECKS,
)
"""Functions without arguments that make one check each."""


def run(report: Callable[[Check], None]) -> tuple[bool, dict[str, Table]]:
    """Runs all checks, as many at a time as there are cores (nearly all their time is compilation, so XLA's
    optimisations are off), and reports each in order; returns whether all passed, and the truth tables by task."""
    passed, tables = True, {}
    pool = ThreadPoolExecutor(cores())
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        bank()
        calibrated = [pool.submit(calibration, name) for name in TASKS]
        pairs = pool.submit(lambda: list(holdout_pairs()))
        others = [pool.submit(check) for check in SINGLE]
        folded = pool.submit(lambda: [*conversion(), inexact_conversion()])

        def results() -> Iterator[Check]:
            for name, one in zip(TASKS, calibrated, strict=True):
                checks, tables[name] = one.result()
                yield from checks
            yield from pairs.result()
            for one in others:
                yield one.result()
            yield from folded.result()

        for check in results():
            passed &= check.passed
            report(check)
    finally:
        pool.shutdown(cancel_futures=True)
        jax.config.update("jax_disable_most_optimizations", before)
    return passed, tables
