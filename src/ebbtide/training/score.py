"""What an evaluator reads off a model as it is, or changed inside: the metrics that a run records."""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from ebbtide.errors import InputError, require
from ebbtide.evaluation import evaluators
from ebbtide.mechanisms.interventions import AnyIntervention, check_all
from ebbtide.models.model import Params
from ebbtide.tasks.fewshot import FewShot
from ebbtide.training.engine import Engine
from ebbtide.training.spec import Spec, from_builtins, from_json


class Score(NamedTuple):
    """The metrics of one evaluator: their means over its prompts, and the standard errors of the means, by name.
    `headline` names the metric that the evaluator is read by: the one that tables and figures show."""

    evaluator: str
    headline: str
    means: dict[str, float]
    errors: dict[str, float]

    @property
    def value(self) -> float:
        """The mean of the headline metric."""
        return self.means[self.headline]

    @property
    def error(self) -> float:
        """The standard error of `value`."""
        return self.errors[self.headline]


def score(
    spec: Spec, params: Params, evaluator: str, interventions: tuple[AnyIntervention, ...] = (), *, member: int = 0
) -> Score:
    """Every metric of an evaluator for a model of this spec, on the evaluation prompts of its run.

    Without interventions these are the numbers that the run recorded when it had these parameters. `interventions` come
    after those of the spec, which act in every pass of its run. `evaluator` is any evaluator of the spec's task, also
    one that the run does not have. `member` counts where the members of the run have different evaluation prompts
    (`vary` of source or task).

        spec, params = eb.model_at("runs/mine")
        whole = eb.score(spec, params, "icl")
        without = eb.score(spec, params, "icl", (eb.Ablate(at="blocks.1.attn.hook_z", heads=(2,)),))
        print(whole.value, whole.error, without.value)

    Raises `InputError` for an evaluator or an intervention that this spec cannot have, and an unknown member.
    """
    require(0 <= member < spec.members, "member", member, f"must be from 0 to {spec.members - 1}")
    evaluators.check((evaluator,), spec.task, spec.source)
    several = isinstance(interventions, tuple | list)
    require(several, "interventions", interventions, "must be a tuple, e.g. (eb.Ablate(at='blocks.0.attn.hook_z'),)")
    every = (*spec.interventions, *interventions)
    changed = replace(spec, evaluators=(evaluator,), keep_best=None, stopping=None, interventions=every)
    changed = from_builtins(msgspec.to_builtins(changed, enc_hook=_number))
    if isinstance(spec.task, FewShot):
        check_all(changed.interventions, changed.model, changed.shape())
    engine = _engine(changed.to_json())
    suite = engine.suite(member)
    measured = np.asarray(engine.measure(params, suite), np.float64)[0]
    means, errors = (dict(zip(spec.metrics(), column.tolist(), strict=True)) for column in measured.T)
    return Score(evaluator, suite.evaluators[0].headline, means, errors)


@lru_cache(maxsize=8)
def _engine(spec: bytes) -> Engine:
    """The compiled functions of a spec: once for many parameters."""
    return Engine(from_json(spec))


def _number(value: Any) -> Any:
    """A number of NumPy or JAX as one of Python."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise InputError("interventions", type(value).__name__, "must be made of numbers and words")
