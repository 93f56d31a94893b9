"""The context that a run's members begin with: folded into the biases of their attention, of a prompt or of a file."""

from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import msgspec
import numpy as np

from ebbtide.errors import InputError, nearest, require
from ebbtide.mechanisms.conversion import with_biases
from ebbtide.models.model import AnyPrompt, Shape
from ebbtide.places import resolve_path, search_note
from ebbtide.runs.atomic import sha256
from ebbtide.runs.reading import FileRecord, load_record
from ebbtide.runs.signed import DamagedError
from ebbtide.tasks.prompt import FunctionPrompt, Prompt, PromptType

LARGEST = 2**30
"""Largest number of bytes of a file with a context."""
Index = Annotated[int, msgspec.Meta(ge=0)]
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class DrawnContext(msgspec.Struct, frozen=True, tag="drawn", forbid_unknown_fields=True):
    """The context of prompt number `index` of one of the run's evaluators; members with worlds of their own have each
    their own prompt.

    Args:
        evaluator: one of the run's evaluators.
        index: the prompt, from 0, below `evaluation_sequences`.
        undo: takes the context out of the biases, in place of adding it.
    """

    evaluator: str
    index: Index
    undo: bool = False

    def check(self, evaluators: tuple[str, ...], prompts: int) -> None:
        """Raises `InputError` unless there is such a prompt."""
        allowed = f"must be one of the run's evaluators: {', '.join(evaluators)}{nearest(self.evaluator, evaluators)}"
        require(self.evaluator in evaluators, "start.context.evaluator", self.evaluator, allowed)
        allowed = f"must be below evaluation_sequences = {prompts}"
        require(self.index < prompts, "start.context.index", self.index, allowed)


class StoredContext(msgspec.Struct, frozen=True, tag="stored", forbid_unknown_fields=True):
    """The context in a .safetensors file: `exemplars` [pair, feature] (float32) and `labels` [pair] (int32) of a
    few-shot task; `inputs` [pair, feature] and `responses` [pair] or [pair, feature] of functions. It may have another
    number of pairs than the task's prompts.

    Args:
        file: the file.
        size: its length in bytes.
        sha256: the SHA-256 of its content, which is refused where it differs.
        undo: takes the context out of the biases, in place of adding it.
    """

    file: str
    size: Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
    sha256: Hash
    undo: bool = False

    def read(self, kind: PromptType, shape: Shape) -> AnyPrompt:
        """One prompt with this context and a query of zeros. Raises `InputError` where the file is missing or another,
        or holds no context for prompts of this kind and shape."""
        path = Path(resolve_path(self.file))
        try:
            arrays = load_record(path.parent, FileRecord(path.name, self.size, self.sha256))
        except (DamagedError, OSError) as error:
            raise InputError("start.context.file", self.file, f"{error}{search_note(self.file)}") from error
        first, second = ("exemplars", "labels") if kind is Prompt else ("inputs", "responses")
        allowed = f"must hold the arrays {first} and {second}, not {', '.join(sorted(arrays))[:200]}"
        require(set(arrays) == {first, second}, "start.context.file", self.file, allowed)
        x, y = arrays[first], arrays[second]
        allowed = f"{first} must be float32 [pair, {shape['dim']}], with a value of {second} for every pair"
        known = x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == shape["dim"] and len(x) == len(y) > 0
        require(known, "start.context.file", self.file, allowed)
        labels = shape["labels"]
        usual = y.dtype == np.int32 and y.ndim == 1 if labels else y.dtype == np.float32 and y.ndim in (1, 2)
        wanted = f"int32 [pair] from 0 to {labels - 1}" if labels else "float32 [pair] or [pair, feature]"
        within = not labels or bool(((y >= 0) & (y < labels)).all())
        require(usual and within, "start.context.file", self.file, f"{second} must be {wanted}")
        return _prompt(kind, x[:, None], y[:, None])


Context = DrawnContext | StoredContext


def _prompt(kind: PromptType, x: Any, y: Any) -> AnyPrompt:
    """One prompt of these pairs with a query of zeros."""
    slots, pairs = len(x) + 1, len(x)
    inputs = jnp.concatenate([jnp.asarray(x), jnp.zeros_like(x[:1])])
    if kind is Prompt:
        slot, one = jnp.zeros((slots, 1), jnp.int32), jnp.zeros(1, jnp.int32)
        return Prompt(inputs, jnp.asarray(y), one, slot, slot.astype(jnp.uint32), slot, one)
    responses = jnp.concatenate([jnp.asarray(y), jnp.zeros_like(y[:1])])
    return FunctionPrompt(inputs, responses, jnp.ones((pairs, 1), bool), {})


def check_context(context: Context, spec: Any) -> None:
    """Raises `InputError` unless members of this spec can begin with the context: their model holds it in biases, and
    no intervention changes what they see."""
    allowed = "must have biases that hold start.context"
    require(with_biases(spec.model) == spec.model, "model.attention", spec.model.attention, allowed)
    allowed = "must be none with start.context: the context is read by the model as it is"
    require(not spec.interventions, "interventions", len(spec.interventions), allowed)
    if isinstance(context, DrawnContext):
        context.check(spec.evaluators, spec.evaluation_sequences)


def record_file(file: str, undo: bool = False) -> StoredContext:
    """The context in a file as it is now. Raises `InputError` where there is no such file, or a larger one than a
    gigabyte."""
    path = Path(resolve_path(file))
    require(path.is_file(), "context", file, "no such file")
    size = path.stat().st_size
    require(0 < size <= LARGEST, "context", file, f"must have 1 to {LARGEST} bytes")
    return StoredContext(file, size, sha256(path.read_bytes()), undo)
