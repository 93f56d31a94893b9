"""`ebbtide convert`: a run whose members hold a context in their weights."""

from argparse import Namespace
from pathlib import Path

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from ebbtide.cli.console import console, find_run
from ebbtide.errors import InputError
from ebbtide.report import tables
from ebbtide.runs.folder import RunFolder
from ebbtide.training.context import Context, DrawnContext
from ebbtide.training.convert import convert_run, parse_context
from ebbtide.training.run import spec_of


def convert(options: Namespace) -> int:
    """Writes the run that begins with a run's members and a context converted to biases of their attention."""
    found, out = find_run(options.run), Path(options.out)
    context = parse_context(options.context, options.undo) if options.context else _own_context(found, options.undo)
    done = convert_run(
        found, context, out, at=options.at, random_features=options.approximate, say=lambda text: console.print(text)
    )
    start = done.spec.start
    assert start is not None
    taken = f"{context.evaluator}:{context.index}" if isinstance(context, DrawnContext) else context.file
    what = "without" if context.undo else "with"
    words = f"{out}: {found.path} at {tables.short(start.sequences)} sequences {what} the context {taken} in its biases"
    console.print(words, soft_wrap=True)
    console.print(tables.curves_table(done))
    return 0


def _own_context(run: RunFolder, undo: bool) -> Context:
    """The context that a run began with, to be taken out again."""
    start = spec_of(run).start
    context = start.context if start is not None else UNSET
    allowed = "name what is converted: EVALUATOR:INDEX or a .safetensors file"
    if isinstance(context, UnsetType) or not undo:
        raise InputError("context", None, allowed)
    return replace(context, undo=not context.undo)
