"""Small models in tests: a prompt that any model reads, and what a forward pass shows at its points."""

import jax
import jax.numpy as jnp
import numpy as np

from ebbtide.models.model import Model
from ebbtide.tasks.prompt import Prompt

CONTEXT, BATCH, DIM, LABELS = 3, 5, 7, 11


def prompt_of(
    seed: int = 0, context: int = CONTEXT, dim: int = DIM, labels: int = LABELS, batch: int = BATCH
) -> Prompt:
    """A few-shot prompt of random exemplars and labels."""
    rng = np.random.default_rng(seed)
    slot = np.zeros((context + 1, batch), np.int32)
    shown = rng.integers(0, labels, (context, batch)).astype(np.int32)
    target = rng.integers(0, labels, batch).astype(np.int32)
    exemplars = rng.normal(size=(context + 1, batch, dim)).astype(np.float32)
    return Prompt(*jax.device_put([exemplars, shown, target, slot, slot.astype(np.uint32), slot, target]))


def recorded(model: Model, params, prompt: Prompt) -> dict[str, np.ndarray]:
    """Every tapped value by name."""
    seen: dict[str, np.ndarray] = {}

    def tap(name, value):
        assert name not in seen
        seen[name] = np.asarray(value)
        return value

    model.apply(params, prompt, tap)
    return seen


def idle_taps(model: Model, params) -> list[str]:
    """The taps at which another prompt's value does not change the logits: none, if what is tapped is what is used."""
    prompt, others = prompt_of(), recorded(model, params, prompt_of(seed=1))
    logits = np.asarray(model.apply(params, prompt))
    replaced = {
        at: model.apply(params, prompt, lambda name, value, at=at: jnp.asarray(others[at]) if name == at else value)
        for at in others
    }
    return [at for at, changed in replaced.items() if not np.abs(changed - logits).max() > 1e-4]
