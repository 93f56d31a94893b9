"""The metrics of one evaluator for a model, with or without interventions."""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from ebbtide.errors import InputError, require
from ebbtide.evaluation import evaluators
from ebbtide.mechanisms.intervene import check_all
from ebbtide.mechanisms.interventions import AnyIntervention
from ebbtide.models.model import Params
from ebbtide.training.custom import as_data
from ebbtide.training.engine import Engine
from ebbtide.training.feasible import check_answerable
from ebbtide.training.inputs import source_content
from ebbtide.training.spec import Spec, from_builtins, from_json


class Score(NamedTuple):
    """The metrics of one evaluator: means over its prompts, and standard errors of the means, by name. `headline` is
    the metric by which tables and figures show the evaluator."""

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

    Without interventions these are the numbers that the run recorded when it had these parameters.

    Args:
        spec: the spec of the run, e.g. from `model_at`.
        params: parameters of one member.
        evaluator: any evaluator of the spec's task, also one that the run does not record.
        interventions: applied after those of the spec, which act in every pass of its run.
        member: whose evaluation prompts, where source or task differ between members.

    Raises:
        InputError: this spec has no such evaluator, intervention or member, describes no run, or needs more memory than
            this machine has.

    >>> spec, params = eb.model_at("runs/tiny")
    >>> whole = eb.score(spec, params, "icl")
    >>> ablated = eb.score(spec, params, "icl", (eb.Ablate(at="blocks.1.attn.hook_z", heads=(1,)),))
    >>> whole.headline, whole.error > 0, whole.means != ablated.means
    ('in_context_accuracy', True, True)
    """
    require(0 <= member < spec.members, "member", member, f"must be from 0 to {spec.members - 1}")
    evaluators.check((evaluator,), spec.task, spec.source)
    several = isinstance(interventions, tuple | list)
    require(several, "interventions", interventions, "must be a tuple, e.g. (eb.Ablate(at='blocks.0.attn.hook_z'),)")
    every = (*spec.interventions, *interventions)
    changed = replace(spec, evaluators=(evaluator,), keep_best=None, stopping=None, interventions=every)
    changed = from_builtins(msgspec.to_builtins(as_data(changed), enc_hook=_number))
    check_all(changed.interventions, changed.model, changed.shape(), spec.task.prompt_type)
    check_answerable(changed, changed.evaluation_sequences, "evaluation_sequences")
    engine = _engine(changed.to_json(), source_content(changed))
    suite = engine.suite(member)
    measured = np.asarray(engine.measure(params, suite), np.float64)[0]
    means, errors = (dict(zip(spec.metrics(), column.tolist(), strict=True)) for column in measured.T)
    return Score(evaluator, suite.evaluators[0].headline, means, errors)


@lru_cache(maxsize=8)
def _engine(spec: bytes, content: str) -> Engine:
    """The compiled functions and the world of a spec, cached for many parameters. `content` is that of the source's
    file, from which the world is made: another file in its place is read anew."""
    return Engine(from_json(spec))


def _number(value: Any) -> Any:
    """A NumPy or JAX number as a Python number."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise InputError("interventions", type(value).__name__, "must be made of numbers and words")
