"""Linear probes of every layer of models of functions: what can be read in the streams of inputs and of responses."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import Answers, fresh_prompts, of_member
from ebbtide.mechanisms.linear import explained_by_probe
from ebbtide.mechanisms.taps import record
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import Snapshot
from ebbtide.studies.evidence import Evidence
from ebbtide.training.run import model_at

PROMPTS = 1000
Target = Float[np.ndarray, "slots prompt features"]
Layers = dict[str, Float[np.ndarray, " layer"]]


class Targets(NamedTuple):
    """What to look for at the tokens of inputs, and at those of responses (of the context's pairs, where they are
    tokens)."""

    inputs: dict[str, Target]
    responses: dict[str, Target]


class Read(NamedTuple):
    """R^2 of every target by layer: 0 is the embedding, l the residual stream after l layers."""

    inputs: Layers
    responses: Layers


def probes(evidence: Evidence, arm: str, targets: Callable[[Answers], Targets]) -> list[Read | None]:
    """What linear maps read in every member's last checkpoint (None: it has not finished), over `PROMPTS` fresh prompts
    and all slots; fitted on half of the prompts, judged on the others (`explained_by_probe`)."""
    return [None if run is None else _probe(run.snapshot(), place, targets) for place, run in evidence.runs(arm)]


def read(
    evidence: Evidence, arm: str, targets: Callable[[Answers], Targets], measure: Callable[[Read], float]
) -> Float[np.ndarray, " member"]:
    """A number from the probes of every member, nan where it has not finished."""
    return np.asarray([np.nan if here is None else measure(here) for here in probes(evidence, arm, targets)])


@lru_cache(maxsize=64)
def _probe(snapshot: Snapshot, place: int, targets: Callable[[Answers], Targets]) -> Read:
    spec, params = model_at(snapshot.path, place)
    model = spec.model
    assert isinstance(model, Transformer)
    prompt = fresh_prompts(spec, "train", PROMPTS).prompt
    points = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(model.layers))]
    seen = jax.jit(lambda p: record(model, p, prompt, *points)[1])(params)
    wanted = targets(of_member(snapshot, place, "train", PROMPTS, True))

    def explained(first: int, wanted: dict[str, Target]) -> Layers:
        streams = [np.asarray(seen[point], np.float64)[first :: 2 if model.by_turns else 1] for point in points]
        return {
            name: np.asarray([explained_by_probe(_rows(x), _rows(y[: len(x)])) for x in streams])
            for name, y in wanted.items()
        }

    return Read(explained(0, wanted.inputs), explained(1, wanted.responses))


def _rows(x: Float[np.ndarray, "slots prompt features"]) -> Float[np.ndarray, "row features"]:
    """Prompt by prompt, so that the rows that judge are of other prompts."""
    return np.swapaxes(x, 0, 1).reshape(-1, x.shape[-1])
