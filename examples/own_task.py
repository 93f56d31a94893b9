"""A task of your own: sine waves in context. `python examples/own_task.py` trains a small transformer on them.

The wave y = a sin(x + p) has its own amplitude a and phase p in every prompt: the regression problem of MAML (Finn et
al. 2017, arXiv 1703.03400, section 5.1), here learned in context. The evaluator `beyond` asks at inputs outside the
range of training.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.errors import require
from ebbtide.tasks.prompt import function_prompts
from ebbtide.tasks.task import FunctionTask, check_pairs

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Sines(FunctionTask, frozen=True):
    """Prompts of `context` pairs (x, a sin(x + p)) and a query, with x uniform in [-span, span], a uniform in
    [0.1, amplitude] and p uniform in [0, pi]; queries of `beyond` are up to twice as far out."""

    context: Annotated[int, msgspec.Meta(ge=1, le=256)] = 10
    amplitude: Positive = 5.0
    span: Positive = 5.0
    beyond: bool = False

    metrics = ("loss", "query_loss", "explained")
    headline = "explained"

    def check(self, source):
        require(source.sizes().dim == 1, "source.dim", source.sizes().dim, "must be 1: a wave has one input")

    def check_pairing(self, pairing):
        check_pairs(pairing)

    def outputs(self, source):
        return 0  # responses are real numbers

    def evaluators(self):
        return ("train", "beyond")

    def variant(self, name):
        return replace(self, beyond=name == "beyond")

    def sample(self, key, index, source, bank, split):
        return function_prompts(self.one, key, index)

    def one(self, key):
        """One prompt: inputs [slot, 1], responses [slot], which pairs are there, and the truth behind them."""
        a_key, p_key, x_key = jax.random.split(key, 3)
        amplitude = jax.random.uniform(a_key, (), minval=0.1, maxval=self.amplitude)
        phase = jax.random.uniform(p_key, (), maxval=jnp.pi)
        x = jax.random.uniform(x_key, (self.context + 1, 1), minval=-self.span, maxval=self.span)
        if self.beyond:
            x = x.at[-1].add(self.span * jnp.sign(x[-1]))
        latent = {"amplitude": amplitude, "phase": phase}
        return x, amplitude * jnp.sin(x[:, 0] + phase), jnp.ones(self.context, bool), latent


SPEC = eb.Spec(
    task=Sines(),
    source=eb.Functions(dim=1),
    model=eb.Transformer(layers=2, width=32, heads=4),
    optimizer=eb.Adam(lr=1e-3),
    batch=64,
    sequences=128_000,
    schedule=eb.Schedule(evaluations=6, checkpoints=2),
    evaluators=("train", "beyond"),
    keep_best="train",
)

if __name__ == "__main__":  # not where ebbtide imports the file
    run = eb.train(SPEC, "runs/own-task")
    for name in SPEC.evaluators:
        print(name, run.metrics()[name][0].round(2))
