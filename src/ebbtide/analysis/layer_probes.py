"""Linear probes of every layer of models of functions: R^2 of features read from the residual stream."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Predictions, predict_member
from ebbtide.mechanisms.linear import explained_by_probe
from ebbtide.mechanisms.taps import record
from ebbtide.models.model import Params
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import Snapshot
from ebbtide.studies.evidence import Evidence
from ebbtide.training.run import model_at

PROMPTS = 1000
Target = Float[np.ndarray, "slots prompt features"]
LayerScores = dict[str, Float[np.ndarray, " layer"]]


class Targets(NamedTuple):
    """Features that probes try to read, by name: `inputs` at the tokens of inputs, `responses` at the tokens of
    responses (of the context's pairs, where responses are tokens)."""

    inputs: dict[str, Target]
    responses: dict[str, Target]


class ProbeScores(NamedTuple):
    """R^2 (1: perfect) of every target by layer: layer 0 is the embedding, layer l the residual stream after l
    layers."""

    inputs: LayerScores
    responses: LayerScores


def probe_members(evidence: Evidence, arm: str, targets: Callable[[Predictions], Targets]) -> list[ProbeScores | None]:
    """Scores of linear probes of every member's last checkpoint, over `PROMPTS` fresh prompts and all slots; None for a
    member that has not finished. A probe is fitted on half of the prompts and judged on the others
    (`explained_by_probe`)."""
    return [None if run is None else _probe_member(run.snapshot(), place, targets) for place, run in evidence.runs(arm)]


def probe_values(
    evidence: Evidence, arm: str, targets: Callable[[Predictions], Targets], measure: Callable[[ProbeScores], float]
) -> Float[np.ndarray, " member"]:
    """`measure` of the probe scores of every member, nan for a member that has not finished."""
    members = probe_members(evidence, arm, targets)
    return np.asarray([np.nan if scores is None else measure(scores) for scores in members])


@lru_cache(maxsize=64)
def _probe_member(snapshot: Snapshot, place: int, targets: Callable[[Predictions], Targets]) -> ProbeScores:
    _, params = model_at(snapshot.path, place)
    return score_layers(params, predict_member(snapshot, place, "train", PROMPTS, True), targets)


def score_layers(params: Params, predictions: Predictions, targets: Callable[[Predictions], Targets]) -> ProbeScores:
    """Scores of linear probes of the model with these parameters, which has made the predictions, on their prompts."""
    model = predictions.spec.model
    assert isinstance(model, Transformer)
    prompt = predictions.prompt_set.prompt
    points = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(model.layers))]
    recorded = jax.jit(lambda p: record(model, p, prompt, *points)[1])(params)
    wanted = targets(predictions)

    def score(first: int, wanted: dict[str, Target]) -> LayerScores:
        streams = [np.asarray(recorded[point], np.float64)[first :: 2 if model.by_turns else 1] for point in points]
        return {
            name: np.asarray([explained_by_probe(_prompt_major(x), _prompt_major(y[: len(x)])) for x in streams])
            for name, y in wanted.items()
        }

    return ProbeScores(score(0, wanted.inputs), score(1, wanted.responses))


def _prompt_major(x: Float[np.ndarray, "slots prompt features"]) -> Float[np.ndarray, "row features"]:
    """Rows of all slots and prompts, prompt by prompt, so that the two halves of the rows are of different prompts."""
    return np.swapaxes(x, 0, 1).reshape(-1, x.shape[-1])
