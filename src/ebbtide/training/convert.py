"""A run whose members begin with a context in their weights: another run's checkpoint, with the context converted."""

import os
from collections.abc import Callable

from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.mechanisms.conversion import with_biases
from ebbtide.runs.folder import RunFolder
from ebbtide.training.context import Context, DrawnContext, record_file
from ebbtide.training.driver import train
from ebbtide.training.run import Run
from ebbtide.training.spec import Spec
from ebbtide.training.start import Start


def parse_context(text: str, undo: bool = False) -> Context:
    """The context that the words FILE.safetensors or EVALUATOR:INDEX name. Raises `InputError` for anything else."""
    if text.endswith(".safetensors"):
        return record_file(text, undo)
    evaluator, colon, index = text.rpartition(":")
    allowed = "must be EVALUATOR:INDEX, e.g. icl:0 for the first prompt of icl, or a .safetensors file"
    require(bool(colon) and index.isdecimal() and len(index) < 10, "context", text, allowed)
    return DrawnContext(evaluator, int(index), undo)


def converted_spec(
    run: RunFolder | str | os.PathLike[str], context: Context, *, at: int | None = None, random_features: int = 0
) -> Spec:
    """The spec of the run that begins with a run's members at a checkpoint, with a context converted to biases.

    Args:
        run: the run, or the path of its folder.
        context: what is converted.
        at: the sequences of the checkpoint; None: the newest.
        random_features: of softmax attention, the number of random features of each head by which the context is
            approximated.

    Raises:
        InputError: there is no such checkpoint, or the run's models cannot hold a context.
    """
    opened = Run(run.path if isinstance(run, RunFolder) else run)
    spec, kept = opened.spec, opened.checkpoints()
    require(len(kept) > 0, "run", str(opened.path), "has no checkpoint yet")
    model = with_biases(spec.model, random_features)
    start = Start(run=str(opened.path), sequences=kept[-1] if at is None else at, context=context)
    return replace(spec, model=model, start=start)


def convert_run(
    run: RunFolder | str | os.PathLike[str],
    context: Context,
    out: str | os.PathLike[str],
    *,
    at: int | None = None,
    random_features: int = 0,
    processes: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Run:
    """Writes the run of `converted_spec` to the folder `out` up to its first checkpoint, before any training, and
    returns it; `resume` would train it further. It holds the evaluations of its models on the task's prompts, which the
    converted context precedes. `processes` and `say` are those of `train`. Raises `InputError` as `converted_spec` and
    `train` do."""
    spec = converted_spec(run, context, at=at, random_features=random_features)
    return train(spec, out, processes=processes, width=1, until=0, progress=False, say=say)
