"""Forward passes of study `affine-recurrence`: what a member computes on fresh prompts at each kept checkpoint."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ebbtide.analysis.predictions import PromptSet, fresh_prompts
from ebbtide.mechanisms.intervene import answer
from ebbtide.mechanisms.interventions import Ablate
from ebbtide.mechanisms.taps import record
from ebbtide.models.layers import EPSILON, layer_norm
from ebbtide.models.model import Params
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.training.probe import checkpoints
from ebbtide.training.run import loadable_spec_of, params_of

PROMPTS, FINAL_PROMPTS = 400, 2000
"""Prompts of a pass over training, and of one at the end, on which all claims but that on the order are judged: few
prompts make most of the error. From each, ten terms are predicted."""
PENALTY = 0.01
"""Penalty of the linear probes."""


class Pass(NamedTuple):
    """One member at one checkpoint, on prompts of real numbers (dim = 1), in float64.

    - `lens`: the read-out, with the final norm, of the residual stream after each layer (the logit lens); the last row
      is the model's answer;
    - `probed`: the next term read by ridge regression from the same streams, with and without the final norm side by
      side, fitted on the other half of the prompts: a lens with a read-out of its own for each layer;
    - `scores`, `pattern`: attention of the last layer before and after the softmax;
    - `direct`: what each head of the last layer adds to the answer without the MLP between, the final norm's scale kept
      at its value;
    - `ablated`: the answer with one head of the last layer set to its mean over the prompts, at every position.
    """

    lens: Float[np.ndarray, "layer slots prompt"]
    probed: Float[np.ndarray, "layer slots prompt"]
    scores: Float[np.ndarray, "prompt head query key"]
    pattern: Float[np.ndarray, "prompt head query key"]
    direct: Float[np.ndarray, "slots prompt head"]
    ablated: Float[np.ndarray, "head slots prompt"]


def passes(run: Snapshot, place: int, last: bool) -> Iterator[tuple[int, Pass, PromptSet]]:
    """Passes of one member of a run on fresh prompts of recurrences outside any pool, with the sequences it was trained
    on: at every kept checkpoint on `PROMPTS`, or at the last alone on `FINAL_PROMPTS`."""
    folder = RunFolder(run.path)
    spec = loadable_spec_of(folder).world(place)
    assert isinstance(spec.model, Transformer)
    prompts = fresh_prompts(spec, "prior", FINAL_PROMPTS if last else PROMPTS)
    run_once = compile_pass(spec.model)
    kept = checkpoints(folder)
    for at, arrays in kept[-1:] if last else kept:
        params = params_of(spec, arrays, place, f"{run.path}: checkpoint {at}")
        yield at, finish_pass(run_once(params, prompts.prompt), prompts), prompts


def finish_pass(raw: tuple[Array, ...], prompts: PromptSet) -> Pass:
    """The pass of what the compiled function returned, in float64 and with the probes' predictions."""
    lens, streams, *rest = (np.asarray(one, np.float64) for one in raw)
    probed = np.stack([probe_predictions(stream, prompts.responses[..., 0]) for stream in streams])
    return Pass(lens, probed, *rest)


@lru_cache(maxsize=8)
def compile_pass(model: Transformer) -> Callable[[Params, FunctionPrompt], tuple[Array, ...]]:
    """Function from (parameters, prompt) to the arrays of a `Pass`, with the residual streams, without and with the
    final norm, in the place of `probed` [layer, slots, prompt, 2 width]: one program for all members and
    checkpoints."""
    return jax.jit(lambda params, prompt: _pass(model, params, prompt))


def _pass(model: Transformer, params: Params, prompt: FunctionPrompt) -> tuple[Array, ...]:
    end = model.layers - 1
    at = {name: f"blocks.{end}.attn.hook_{name}" for name in ("attn_scores", "pattern", "z")}
    _, seen = record(model, params, prompt, "blocks.*.hook_resid_post", *at.values())
    streams = jnp.stack([seen[f"blocks.{i}.hook_resid_post"] for i in range(model.layers)])
    readout = params["readout"]["w"][:, 0]
    normed = layer_norm(params["norm"], streams)
    lens = normed @ readout + params["readout"]["b"][0]
    scale = jax.lax.rsqrt(streams[-1].var(-1, keepdims=True) + EPSILON) * params["norm"]["scale"]
    out = params["blocks"][end]["attn"]["o"].reshape(model.heads, -1, model.width)
    added = jnp.einsum("sbhk,hkd->sbhd", seen[at["z"]], out)
    direct = jnp.einsum("sbhd,sbd->sbh", added - added.mean(-1, keepdims=True), scale * readout)
    ablated = [
        answer(model, params, prompt, (Ablate(at=at["z"], heads=(head,), how="mean"),))[..., 0]
        for head in range(model.heads)
    ]
    return (
        lens,
        jnp.concatenate([streams, normed], axis=-1),
        seen[at["attn_scores"]],
        seen[at["pattern"]],
        direct,
        jnp.stack(ablated),
    )


def probe_predictions(
    stream: Float[np.ndarray, "slots prompt width"], y: Float[np.ndarray, "slots prompt"]
) -> Float[np.ndarray, "slots prompt"]:
    """The next terms as ridge regression reads them from a residual stream: one linear map for all slots from the
    third term on, fitted on one half of the prompts and asked about the other, in turn."""
    x, first = np.append(stream, np.ones_like(stream[..., :1]), axis=-1), 2
    half, found = y.shape[1] // 2, np.empty(y.shape)
    for asked, given in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):
        rows = x[first:, given].reshape(-1, x.shape[-1])
        gram = rows.T @ rows + PENALTY * np.eye(x.shape[-1])
        found[:, asked] = x[:, asked] @ np.linalg.solve(gram, rows.T @ y[first:, given].ravel())
    return found
