"""Experiment `through-training`: what share of the answers the state of the context carries, while ICL comes and goes.

The context of a prompt is converted to biases (`fold_context`) at every kept checkpoint. The biases are then left as
they are, exchanged for those of another prompt's context, or taken away, while weights and query stay the same.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ebbtide.analysis.predictions import map_members
from ebbtide.mechanisms.conversion import add_biases, fold_context, query_alone, with_biases
from ebbtide.models.linearized import Linearized
from ebbtide.models.model import Model, Params
from ebbtide.models.positions import NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.papers.context_to_weights.measures import TOGETHER, unseen_prompts
from ebbtide.report.arms_figure import COLOURS
from ebbtide.report.curves import draw_members, members_words
from ebbtide.report.figure import render
from ebbtide.runs.folder import Snapshot
from ebbtide.sources.gaussian import Gaussian
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.tasks.prompt import Prompt, part
from ebbtide.training.optimizer import Adam
from ebbtide.training.run import Run
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

ARM = "linearized"
PROMPTS = 1000
"""Prompts of each kind, so that the standard error of a share is at most .016."""
TRAINING, CONFLICT = "train", "flip"
"""Evaluators: prompts as in training, and prompts whose context gives the query's class another class's label."""
HALF, FALL, SAME = 0.5, 0.25, 0.02
"""Own limits: shares of all answers. SAME is nearly four standard errors of a share of .97."""

TRANSIENT = Spec(
    task=FewShot(context=2, burst=1, labels=Shared(4), exemplar_draw="without_replacement"),
    source=Gaussian(classes=256, exemplars=5, dim=24, noise=0.7, holdout_classes=128, holdout_exemplars=2),
    model=Transformer(
        layers=2, width=32, heads=4, pairing="joint", attention=Linearized("exp"), positions=NoPositions()
    ),
    optimizer=Adam(lr=4e-3, schedule=Constant(warmup=4000)),
    batch=16,
    sequences=1_280_000,
    schedule=Schedule(evaluations=25, spacing="log", first=4000, checkpoints=25),
    evaluators=(TRAINING, "icl", "iwl", "ciwl", CONFLICT),
    evaluation_sequences=600,
    keep_best=None,
)
"""The setting in which study `transience` sees ICL rise and fall, with linearized attention over joint tokens, which
needs no positions."""


class Carried(NamedTuple):
    """Shares of prompts, at every kept checkpoint. Of prompts as in training, the shares answered rightly with the
    state of the prompt's own context, with that of another prompt's context, and without any. Of prompts in conflict,
    the shares answered as the state of their context says, and as the weights say."""

    sequences: Int[np.ndarray, " checkpoint"]
    own: Float[np.ndarray, " checkpoint"]
    other: Float[np.ndarray, " checkpoint"]
    without: Float[np.ndarray, " checkpoint"]
    by_state: Float[np.ndarray, " checkpoint"]
    by_weights: Float[np.ndarray, " checkpoint"]

    @property
    def carried(self) -> Float[np.ndarray, " checkpoint"]:
        """The share of right answers that the state of the right context carries: `own` - `other`."""
        return self.own - self.other


class Answers(NamedTuple):
    """Labels with the largest logit, by the state of the context: the query's own, the next prompt's query with the
    same state, and the own query without state."""

    own: Int[Array, " prompt"]
    next: Int[Array, " prompt"]
    without: Int[Array, " prompt"]


def answer_by_state(model: Model, params: Params, prompts: Prompt) -> Answers:
    """Answers to the queries of `prompts` by models whose contexts are converted; `model` has biases (`add_biases`)."""
    count = len(prompts.target)

    def one(i: Int[Array, ""]) -> tuple[Array, Array]:
        prompt, following = part(prompts, i, 1), part(prompts, (i + 1) % count, 1)
        folded = fold_context(model, params, prompt)
        said, next_said = (model.apply(folded, query_alone(each))[0].argmax() for each in (prompt, following))
        return said, next_said

    own, following = jax.lax.map(one, jnp.arange(count, dtype=jnp.int32), batch_size=min(TOGETHER, count))
    return Answers(own, following, model.apply(params, query_alone(prompts)).argmax(-1))


def shares(training: Answers, of_training: Prompt, conflict: Answers, in_conflict: Prompt) -> tuple[float, ...]:
    """The shares of `Carried` at one checkpoint, in its order. Prompts in conflict have the class's own label from
    training in `own_label`."""
    target, said = np.asarray(of_training.target), np.asarray(conflict.own)
    right = (
        np.asarray(training.own) == target,
        np.asarray(training.next) == np.roll(target, -1),
        np.asarray(training.without) == target,
        said == np.asarray(in_conflict.target),
        said == np.asarray(in_conflict.own_label),
    )
    return tuple(float(one.mean()) for one in right)


@lru_cache(maxsize=128)
def measure_carried(snapshot: Snapshot, place: int) -> Carried:
    """`Carried` of one member of a run, on prompts that neither training nor its evaluations have seen."""
    run = Run(snapshot.path)
    drawn = [unseen_prompts(run.spec, name, PROMPTS, place) for name in (TRAINING, CONFLICT)]
    times, rows = run.checkpoints(), []
    for at in times:
        model, params = add_biases(*run.model(place, at))
        training, conflict = (_compile_answers(model)(params, prompts) for prompts in drawn)
        rows.append(shares(training, drawn[0], conflict, drawn[1]))
    return Carried(np.asarray(times), *np.asarray(rows).T)


@lru_cache(maxsize=4)
def _compile_answers(model: Model) -> Callable[[Params, Prompt], Answers]:
    return jax.jit(lambda params, prompts: answer_by_state(model, params, prompts))


def _members(evidence: Evidence) -> list[Carried | None]:
    return map_members(evidence, ARM, lambda snapshot, place: measure_carried(snapshot, place))


def _claim(
    name: str, statement: str, source: str, metric: str, threshold: float, value: Callable[[Carried], float]
) -> Claim:
    """A claim on a value of every member's `Carried`; nan for a member that has not finished."""

    def estimate(evidence: Evidence) -> Float[np.ndarray, " member"]:
        return np.asarray([np.nan if one is None else float(value(one)) for one in _members(evidence)])

    return Claim(name, statement, source, metric, threshold, estimate, (ARM,))


def fall(curve: Float[np.ndarray, " checkpoint"]) -> float:
    """The fall of a curve from its highest value to its end."""
    return float(curve.max() - curve[-1])


def peak(one: Carried) -> int:
    """The checkpoint at which the state carries most."""
    return int(one.carried.argmax())


DIFFERENCE = "right answers with the state of the own context - with that of another prompt's"
CLAIMS = (
    _claim(
        "carried",
        "at its best the state of the context carries more than half of all answers",
        "own: what ICL is, by exchange of states; half: own limit",
        f"largest over training of: {DIFFERENCE}",
        HALF,
        lambda one: one.carried.max(),
    ),
    _claim(
        "fades",
        "what the state carries then falls by more than half of that",
        "own: Singh et al. 2023, Fig. 1, asked of the state; half of a half: own limit",
        f"fall from its peak to the end of: {DIFFERENCE}",
        FALL,
        lambda one: fall(one.carried),
    ),
    _claim(
        "taken over",
        "and the weights take it over: with another prompt's state right answers become more by as much",
        "own: what replaces ICL",
        f"rise of right answers with another prompt's state from the peak of the carried share on - {FALL:g}",
        0.0,
        lambda one: one.other[-1] - one.other[peak(one)] - FALL,
    ),
    _claim(
        "hidden",
        "while the answers as they are get no worse",
        "own: Singh et al. 2023, abstract, asked of answers: accuracy does not reveal the fall",
        f"smaller of: {SAME:g} - fall of right answers from that peak on, fall of the carried share - {FALL:g}",
        0.0,
        lambda one: min(SAME + one.own[-1] - one.own[peak(one)], fall(one.carried) - FALL),
    ),
    _claim(
        "conflict",
        "where state and weights say different labels, the state decides less and less",
        "own: the evaluator Flip of Singh et al. 2025, asked of the state",
        "fall from its peak to the end of: answers as the state says - as the weights say",
        FALL,
        lambda one: fall(one.by_state - one.by_weights),
    ),
)


def draw_carried(evidence: Evidence, title: str) -> Figures:
    """carried.png: left, right answers to prompts as in training by the state that the model is given; right, answers
    to prompts on which state and weights disagree."""
    from matplotlib.figure import Figure

    finished = [one for one in _members(evidence) if one is not None]
    if not finished:
        return {}
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    training, conflict = figure.subplots(1, 2, sharey=True)
    for panel, words, lines in (
        (
            training,
            "prompts as in training: right answers",
            {"state of its context": "own", "of another context": "other", "no state": "without"},
        ),
        (
            conflict,
            "state and weights disagree: answers as",
            {"the state says": "by_state", "the weights say": "by_weights"},
        ),
    ):
        for i, (label, name) in enumerate(lines.items()):
            members = np.stack([getattr(one, name) for one in finished])
            draw_members(panel, finished[0].sequences, members, COLOURS[i if panel is training else i + 3], label)
        panel.set_xscale("symlog", linthresh=4000)
        panel.set_ylim(-0.03, 1.03)
        panel.set_title(words, loc="left", fontsize=9)
        panel.set_xlabel("sequences (per member)", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.92", lw=0.6)
        panel.legend(frameon=False, fontsize=8)
    training.set_ylabel("share of prompts", fontsize=9)
    figure.suptitle(f"{title}\n{members_words(len(finished))}", fontsize=9.5)
    return {"carried.png": render(figure, "png")}


THROUGH_TRAINING = Experiment(
    name="through-training",
    question="What share of the answers does the state of the context carry, while ICL comes and goes?",
    section="own",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison({ARM: {"model.attention.features": "exp"}}, base={}, preset="transient", round=1),
            6.5,
            "not in the paper; the setting of study transience with linearized attention over joint tokens",
        )
    },
    shows=("icl", "ciwl", "iwl", CONFLICT, TRAINING),
    scalars=("icl_peak", "icl_final", "iwl_final", "train_final", "train_loss_final"),
    figures=draw_carried,
    check=lambda spec: with_biases(spec.model),
)
