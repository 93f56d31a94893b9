"""Scripted predictors that play one strategy exactly, to calibrate the evaluators."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ebbtide.compile import compile_fast
from ebbtide.evaluation.evaluators import Suite
from ebbtide.keys import Purpose, root
from ebbtide.tasks.fewshot import METRICS
from ebbtide.tasks.prompt import Prompt

Oracle = Callable[[Prompt, int, Key[Array, ""]], Float[Array, "batch labels"]]
SURE = 20.0
"""Logit of a label that the oracle predicts, where the others have 0."""


def _votes(prompt: Prompt, weight: Float[Array, "context batch"], outputs: int) -> Float[Array, "batch labels"]:
    """Logits in which every context slot adds its weight to the logit of its label."""
    batch = prompt.target.shape[0]
    lanes = jnp.broadcast_to(jnp.arange(batch), prompt.labels.shape)
    return jnp.zeros((batch, outputs)).at[lanes, prompt.labels].add(weight)


def _noise(key: Key[Array, ""], prompt: Prompt, outputs: int) -> Float[Array, "batch labels"]:
    """Noise that breaks ties at random and changes no other order."""
    return 1e-3 * jax.random.uniform(key, (prompt.target.shape[0], outputs))


def _logits_in_weights(prompt: Prompt, outputs: int) -> Float[Array, "batch labels"]:
    return SURE * jax.nn.one_hot(prompt.own_label, outputs)  # own_label -1 (nothing remembered): no label


def icl(prompt: Prompt, outputs: int, key: Key[Array, ""]) -> Float[Array, "batch labels"]:
    """Logits of the ICL oracle: it predicts the label of the context exemplar nearest to the query (Euclidean)."""
    distance = jnp.sum((prompt.exemplars[:-1] - prompt.exemplars[-1]) ** 2, axis=-1)
    nearest = distance == distance.min(axis=0)
    return _votes(prompt, SURE * nearest, outputs) + _noise(key, prompt, outputs)


def iwl(prompt: Prompt, outputs: int, key: Key[Array, ""]) -> Float[Array, "batch labels"]:
    """Logits of the IWL oracle: it predicts the label that training ties to the query's class, whatever the context."""
    return _logits_in_weights(prompt, outputs) + _noise(key, prompt, outputs)


def ciwl(prompt: Prompt, outputs: int, key: Key[Array, ""]) -> Float[Array, "batch labels"]:
    """Logits of the CIWL oracle: among the labels in context it predicts the one that training ties to the query's
    class, or if there is none any of them."""
    shown = _votes(prompt, jnp.full(prompt.labels.shape, 2 * SURE), outputs)
    return jnp.minimum(shown, 2 * SURE) + _logits_in_weights(prompt, outputs) + _noise(key, prompt, outputs)


def majority(prompt: Prompt, outputs: int, key: Key[Array, ""]) -> Float[Array, "batch labels"]:
    """Logits of an oracle that predicts the most frequent label of the context."""
    return _votes(prompt, jnp.full(prompt.labels.shape, SURE), outputs) + _noise(key, prompt, outputs)


def last(prompt: Prompt, outputs: int, key: Key[Array, ""]) -> Float[Array, "batch labels"]:
    """Logits of an oracle that predicts the last label of the context."""
    slot = jnp.arange(prompt.labels.shape[0])[:, None] == prompt.labels.shape[0] - 1
    weight = jnp.broadcast_to(SURE * slot, prompt.labels.shape)
    return _votes(prompt, weight, outputs) + _noise(key, prompt, outputs)


def guess(prompt: Prompt, outputs: int, key: Key[Array, ""]) -> Float[Array, "batch labels"]:
    """Logits of an oracle that predicts a uniformly random label."""
    return _noise(key, prompt, outputs)


ORACLES: dict[str, Oracle] = {"ICL": icl, "IWL": iwl, "CIWL": ciwl, "majority": majority, "last": last, "random": guess}


def truth_table(suite: Suite, outputs: int, seed: int = 0) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard error of the headline metric of every oracle on every evaluator: table[oracle][evaluator]. One
    program measures all oracles, so the metrics compile once."""

    def scores(which: Int[Array, ""]) -> Float[Array, "evaluators metrics 2"]:
        def answer(prompt: Prompt) -> Float[Array, "batch labels"]:
            each = [partial(oracle, prompt, outputs) for oracle in ORACLES.values()]
            return jax.lax.switch(which, each, root(seed, Purpose.ORACLE, which))

        return suite.measure(answer)

    measured = np.asarray(compile_fast(lambda: jax.lax.map(scores, jnp.arange(len(ORACLES))))())
    return {
        oracle: {
            one.name: (float(mean), float(error))
            for one, scored in zip(suite.evaluators, rows, strict=True)
            for mean, error in [scored[METRICS.index(one.headline)]]
        }
        for oracle, rows in zip(ORACLES, measured, strict=True)
    }


def expected(oracle: str, evaluator: str, chance: float, outputs: int) -> float | None:
    """Score of an oracle in theory by the evaluator's headline metric; None where it depends on the task.

    The entries hold for two context slots per sequence class (context = 2 * burst, with distractor) and noise small
    enough for the nearest exemplar to be of the query's class.
    """
    open_set = evaluator.startswith("iwl")
    if oracle == "random":
        return 1 / outputs if open_set else chance
    if evaluator == "train":
        return 1.0 if oracle in ("ICL", "IWL", "CIWL") else chance
    if evaluator.startswith("icl"):
        return 1.0 if oracle == "ICL" else chance
    if evaluator.startswith("flip"):
        return {"ICL": 1.0, "IWL": 0.0, "CIWL": 0.0}.get(oracle, chance)
    if evaluator == "ciwl":
        return 1.0 if oracle in ("IWL", "CIWL") else None if oracle == "majority" else chance
    return 1.0 if oracle == "IWL" else 0.0
