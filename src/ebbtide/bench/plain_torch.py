"""The same model in plain PyTorch, eager or compiled: the baseline from outside. PyTorch is optional.

Batches are drawn beforehand and wait in memory, so PyTorch is not charged for sampling. The read-out is for the query's
position only; everything else covers the whole sequence at once. Of Adam's implementations (loop, foreach, fused) the
one that trains fastest here is used.
"""

import importlib
import importlib.util
import time
from typing import Any

import numpy as np

from ebbtide.bench.configs import plain_transformer
from ebbtide.bench.prompts import Batch, HostSampler
from ebbtide.errors import InputError
from ebbtide.training.spec import Spec

WAITING = 32
"""Batches drawn beforehand."""
TRIAL_SECONDS = 0.1
"""Seconds for which each implementation of Adam is tried, three times."""
ADAMS = ({"foreach": False}, {"foreach": True}, {"fused": True})


def is_installed() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def load() -> Any:
    """The package torch. Raises `InputError` where it is not installed."""
    if not is_installed():
        raise InputError("implementation", "torch", "PyTorch is not installed (pip install torch)")
    return importlib.import_module("torch")


def build(spec: Spec) -> Any:
    """The model: a module (exemplars [batch, slots, dim], labels [batch, context]) -> logits."""
    torch = load()
    nn, functional = torch.nn, torch.nn.functional
    sizes, model = spec.source.sizes(), plain_transformer(spec)
    d, hidden, outputs = model.width, model.width * model.mlp_ratio, spec.outputs()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.qkv = nn.LayerNorm(d), nn.Linear(d, 3 * d, bias=model.attention_bias)
            self.o = nn.Linear(d, d, bias=model.attention_bias)
            self.mlp = None
            if hidden:
                gelu = nn.GELU(approximate="tanh")
                self.mlp = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, hidden), gelu, nn.Linear(hidden, d))

        def forward(self, x: Any) -> Any:
            batch, tokens, _ = x.shape
            qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, model.heads, d // model.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.o(z.transpose(1, 2).reshape(batch, tokens, d))
            return x if self.mlp is None else x + self.mlp(x)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.exemplar, self.label = nn.Linear(sizes.dim, d), nn.Embedding(outputs, d)
            self.position = nn.Parameter(0.1 * torch.randn(2 * spec.task.context + 1, d))
            self.blocks = nn.ModuleList(Block() for _ in range(model.layers))
            self.norm, self.readout = nn.LayerNorm(d), nn.Linear(d, outputs)

        def forward(self, exemplars: Any, labels: Any) -> Any:
            e = self.exemplar(exemplars)
            pairs = torch.stack([e[:, :-1], self.label(labels)], dim=2).flatten(1, 2)
            x = torch.cat([pairs, e[:, -1:]], dim=1) + self.position
            for block in self.blocks:
                x = block(x)
            return self.readout(self.norm(x[:, -1]))

    return Model()


def tensors(batch: Batch) -> tuple[Any, ...]:
    """A batch as tensors."""
    torch = load()
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in batch)


class PlainTorch:
    """An implementation that trains one step per iteration of the usual loop."""

    def __init__(self, spec: Spec, threads: int, compiled: bool):
        torch = load()
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        sampler = HostSampler(spec)
        self.waiting, self.at = [tensors(sampler.draw()) for _ in range(WAITING)], 0
        self.model, self.cross_entropy = build(spec), torch.nn.functional.cross_entropy
        self.forward = torch.compile(self.model) if compiled else self.model
        self.adams = [torch.optim.Adam(self.model.parameters(), lr=spec.optimizer.lr, **kind) for kind in ADAMS]
        self.optimizer, self.note = self.adams[0], "batches drawn beforehand"

    def choose(self) -> None:
        """Keeps the fastest implementation of Adam. To be called once everything is compiled."""
        record_calls = []
        for optimizer in self.adams:
            self.optimizer = optimizer
            self.train(1)
            steps = max(1, round(TRIAL_SECONDS / self._seconds(1)))
            record_calls.append(min(self._seconds(steps) / steps for _ in range(3)))
        fastest = int(np.argmin(record_calls))
        self.optimizer, self.adams = self.adams[fastest], [self.adams[fastest]]
        name = ("loop", "foreach", "fused")[fastest]
        self.note = f"batches drawn beforehand; Adam: {name}"

    def _seconds(self, steps: int) -> float:
        began = time.perf_counter()
        self.train(steps)
        return time.perf_counter() - began

    def train(self, steps: int) -> None:
        """Trains for `steps` optimiser steps."""
        for _ in range(steps):
            exemplars, labels, target = self.waiting[self.at]
            self.at = (self.at + 1) % len(self.waiting)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.cross_entropy(self.forward(exemplars, labels), target)
            loss.backward()
            self.optimizer.step()
