"""Runs whose prompts are looked at, and what their models compute."""

from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.dashboard.asking.answer import answer
from ebbtide.dashboard.asking.question import Question
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import Instrument
from ebbtide.runs.writer import Writer
from ebbtide.training.schedule import Schedule
from ebbtide.training.start import PREFIX, to_dotted
from tiny import SPEC, header, watched

FEWSHOT = replace(
    SPEC,
    sequences=512,
    task=eb.FewShot(context=4, burst=2),
    schedule=Schedule(evaluations=3, checkpoints=3),
    evaluators=("icl", "iwl", "flip"),
    evaluation_sequences=20,
)
"""Two members; checkpoints at 0, 256 and 512."""

REGRESSION = replace(
    SPEC,
    task=eb.Regression(context=6, noise=(0.25, 0.5)),
    source=eb.Functions(dim=3, pool=4),
    evaluators=("train", "prior"),
    evaluation_sequences=20,
    keep_best=None,
)


def untrained(path: Path, spec: eb.Spec, at: tuple[int, ...] = (0,)) -> RunFolder:
    """A run folder with a checkpoint of drawn parameters at each of the counts `at`, other ones for every member."""
    metrics = spec.task.metrics
    instruments = [Instrument(name, spec.task.evaluator(name, spec.source).headline, 0.5) for name in spec.evaluators]
    head = replace(header(replace(spec, evaluators=())), instruments=instruments, metrics=list(metrics))
    head = replace(head, digest=spec.digest(), spec=msgspec.to_builtins(spec))
    writer = Writer(path, head)
    for i, sequences in enumerate(at):
        keys = jax.random.split(jax.random.key(i), spec.members)
        drawn = [to_dotted(spec.model.init(key, **spec.shape())) for key in keys]
        state: dict[str, Any] = {f"{PREFIX}{name}": np.stack([one[name] for one in drawn]) for name in drawn[0]}
        state |= {"step": np.full(spec.members, sequences // spec.batch, np.uint32), **watched(spec.members)}
        last = i == len(at) - 1
        writer.commit(sequences=sequences, state=state, evaluations=None, kept=True, finished=last, seconds=1.0)
    writer.close()
    return RunFolder(path)


def ask(run: RunFolder, what: Any = "prompt", **words: Any) -> dict[str, Any]:
    """The answer to a question, computed in this process and read from JSON as the page reads it."""
    question = Question(what=what, folder=str(run.path), **{"evaluator": run.header.instruments[0].name, **words})
    return msgspec.json.decode(msgspec.json.encode(answer(question)))


def outputs(run: RunFolder, evaluator: str, member: int, at: int, prompts: int) -> np.ndarray:
    """The outputs of one member at the queries of its own prompts of an evaluator: what the view must show."""
    model, params = eb.Run(run.path).model(member, at)
    prompt = eb.prompts_of(eb.Run(run.path).spec, evaluator, prompts, member)
    found = np.asarray(model.apply(params, prompt))
    return found if isinstance(prompt, eb.Prompt) else found[-1]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of labels."""
    return np.asarray(jax.nn.softmax(logits, axis=-1))
