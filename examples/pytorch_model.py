"""A transformer in plain PyTorch, trained by its own loop and watched by ebbtide.

    pip install torch
    python examples/pytorch_model.py [training sequences]

The loop takes its batches from the suite, asks the monitor now and then, keeps the best model and stops by the
early-stop rule. At the end the best model's evaluators and strategy fractions are printed beside the last one's.
"""

import copy
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import ebbtide as eb

BATCH, EVERY = 64, 25_600


def make_suite(sequences: int = 500) -> eb.FewShotSuite:
    """Two pairs in context, 512 Gaussian classes that share four labels: solvable from the context or from memory."""
    return eb.FewShotSuite(
        task=eb.FewShot(context=2, burst=1, labels=eb.Shared(4)),
        source=eb.Gaussian(classes=512, exemplars=2, dim=24, noise=1.3),
        sequences=sequences,
    )


class Model(nn.Module):
    """Tokens e1 l1 e2 l2 ... query, a causal transformer, logits at the query."""

    def __init__(self, suite: eb.FewShotSuite, width: int = 32, layers: int = 2, heads: int = 4):
        super().__init__()
        tokens = 2 * suite.context + 1
        self.example, self.label = nn.Linear(suite.dim, width), nn.Embedding(suite.outputs, width)
        self.position = nn.Parameter(0.1 * torch.randn(tokens, width))
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.readout = nn.Linear(width, suite.outputs)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(tokens))

    def forward(self, examples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        e, known = self.example(examples), self.label(labels)
        pairs = torch.stack([e[:, :-1], known], dim=2).flatten(1, 2)
        x = torch.cat([pairs, e[:, -1:]], dim=1) + self.position
        return self.readout(self.blocks(x, mask=self.mask, is_causal=True)[:, -1])


def predictor(model: Model):
    """The model as ebbtide calls it: NumPy in, tensor out."""

    @torch.no_grad()
    def predict(examples: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        model.eval()
        logits = model(torch.from_numpy(examples), torch.from_numpy(labels))
        model.train()
        return logits

    return predict


def train(model: Model, watch: eb.Monitor, sequences: int) -> dict[str, torch.Tensor]:
    """Trains until the budget ends or the monitor says stop; returns the weights of the best model."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    best, losses = copy.deepcopy(model.state_dict()), []
    for step, (examples, labels, target) in enumerate(watch.suite.batches(BATCH)):
        done = step * BATCH
        if done % EVERY == 0:
            record = watch(done, predictor(model), train_loss=float(np.mean(losses)) if losses else float("nan"))
            losses = []
            print(f"{done:>8} sequences", *[f"{name} {record[name]:.3f}" for name in ("train", "icl", "iwl", "ciwl")])
            if watch.improved:
                best = copy.deepcopy(model.state_dict())
            if watch.stop or done >= sequences:
                break
        logits = model(torch.from_numpy(examples), torch.from_numpy(labels))
        loss = functional.cross_entropy(logits, torch.from_numpy(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return best


def main(sequences: int) -> eb.Monitor:
    """Trains a model and prints what it does, at its best and at its end."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    suite = make_suite()
    watch = eb.Monitor(suite, stopping=eb.EarlyStopping(patience=10 * EVERY))
    model = Model(suite)
    best = train(model, watch, sequences)
    print("stopped early" if watch.stop else "budget used", "- the last model:")
    print(watch.history[-1].findings)
    model.load_state_dict(best)
    print(f"\nthe best model, after {watch.best.sequences} sequences:")
    print(eb.evaluate(predictor(model), suite))
    print("\n" + ", ".join(f"{name} {value:.4g}" for name, value in watch.summary().items()))
    return watch


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 640_000)
