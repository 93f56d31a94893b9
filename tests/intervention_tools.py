"""The transformer and the prompt on which interventions and measures are tried."""

from functools import cache
from typing import Any

import jax
import numpy as np

from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import Prompt

SHAPE: Any = {"context": 3, "dim": 5, "labels": 6}
MODEL = Transformer(layers=2, width=16, heads=4, mlp_ratio=2)
BATCH = 7


def a_prompt(context: int = 3, seed: int = 0) -> Prompt:
    """Random exemplars; the target is among the labels in context, twice in some sequences."""
    rng = np.random.default_rng(seed)
    slot = np.zeros((context + 1, BATCH), np.int32)
    labels = rng.integers(0, 6, (context, BATCH)).astype(np.int32)
    x = rng.normal(size=(context + 1, BATCH, 5)).astype(np.float32)
    return Prompt(*jax.device_put([x, labels, labels[0], slot, slot.astype(np.uint32), slot, labels[0]]))


PROMPT = a_prompt()


@cache
def weights() -> Any:
    """The parameters that most tests use."""
    return MODEL.init(jax.random.key(1), **SHAPE)
