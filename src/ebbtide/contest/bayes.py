r"""T1, the hierarchical Bayesian theory of Wurgaft et al. 2025 (arXiv 2506.17859).

A model weighs strategies by a prior that prefers simple ones, and by how well they explain the n sequences seen so far,
which count less and less:
$$w_k(n) \propto \exp\!\big(-\ln 2\, K_k^b - g\, n^{1-a}\, \bar L_k\big),$$
with $K_k$ the description of strategy k in bits and $\bar L_k$ its mean loss on training prompts (`predictors.costs`).
Three parameters, $a, b, g \ge 0$. So strategy M overtakes G, $K_M > K_G$ and $\bar L_M < \bar L_G$, after
$$n^* = \left[\frac{\ln 2\,(K_M^b - K_G^b)}{g\,(\bar L_G - \bar L_M)}\right]^{1/(1-a)}$$
sequences, a power b / (1 - a) of $K_M$ where K_G is small.

The paper has the two strategies G and M. The third one here, guessing, is ours: K = 0, and the loss of a uniform guess.
It makes the onset of G a prediction of the same three numbers; the paper leaves the time before it out.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.fitting import join, loss_and_slope, minimise, softmax, through_softmax
from ebbtide.contest.predictors import Complexity, Costs, costs
from ebbtide.contest.theory import GENERALISING, MEMORISING, NEITHER, Facts, Fractions, Seen
from ebbtide.errors import InputError

UNIT = 1e5
"""Sequences at which the evidence is measured while fitting, so that it and the exponent a can be told apart."""
BOUNDS = ((0.0, 0.97), (-12.0, 0.4), (-12.0, 14.0))
"""Of a, and of the logarithms of b and of g UNIT^(1-a)."""
LN2 = float(np.log(2))


class Bayes(msgspec.Struct, frozen=True):
    """The hierarchical Bayesian theory.

    Args:
        complexity: what a strategy's description is measured by, "mdl" or "code" (`predictors.costs`).
        a, b, g: the fitted parameters; g in units of sequences^(a-1) a nat.
    """

    complexity: Complexity = "mdl"
    a: float = float("nan")
    b: float = float("nan")
    g: float = float("nan")

    @property
    def name(self) -> str:
        return f"bayes ({self.complexity})"

    @property
    def free(self) -> int:
        return 3

    @property
    def needs_pure(self) -> bool:
        return False

    def inputs(self, facts: Facts) -> Costs:
        """Losses and bits of the exact predictors. Raises `InputError` for a cell without them."""
        if facts.spec is None:
            raise InputError("spec", None, "must be known to the theory bayes, which draws prompts")
        return costs(facts.spec, self.complexity)

    def fit(self, seen: Sequence[Seen]) -> "Bayes":
        """The theory with the a, b and g of the least divergence."""
        rows = join(seen)
        losses, bits = (np.stack([one.inputs[i] for one in seen])[rows.cell] for i in range(2))
        logs = np.where(bits > 0, np.log(np.maximum(bits, 1e-300)), 0.0)
        ages = np.log(rows.sequences / UNIT)[:, None]

        def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
            a, b, evidence = at[0], np.exp(at[1]), at[2]
            prior = np.where(bits > 0, -LN2 * np.exp(b * logs), 0.0)
            seen_loss = -np.exp(evidence + (1 - a) * ages) * losses
            fractions = softmax(prior + seen_loss)
            value, slope = loss_and_slope(rows, fractions)
            slope = through_softmax(slope, fractions)
            return value, np.array([(slope * d).sum() for d in (-seen_loss * ages, b * prior * logs, seen_loss)])

        known = np.isfinite([self.a, self.b, self.g]).all()
        own = [self.a, np.log(self.b), np.log(self.g) + (1 - self.a) * np.log(UNIT)]
        a, b, evidence = minimise(objective, BOUNDS, [own] if known else _starts(seen, rows.sequences))
        return Bayes(self.complexity, float(a), float(np.exp(b)), float(np.exp(evidence - (1 - a) * np.log(UNIT))))

    def predict(self, inputs: Costs, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The weights of the strategies after so many sequences."""
        prior = np.where(inputs.bits > 0, -LN2 * np.maximum(inputs.bits, 1e-300) ** self.b, 0.0)
        age = np.asarray(sequences, np.float64)[:, None] ** (1 - self.a)
        return softmax(prior - self.g * age * inputs.losses)

    def parameters(self) -> Mapping[str, float]:
        return {"a": self.a, "b": self.b, "g": self.g}

    def turn(self, inputs: Costs) -> float:
        """n*, the sequences after which the memorising and the generalising strategy weigh the same; nan where they
        never do."""
        return self._crossing(inputs, MEMORISING, GENERALISING)

    def onset(self, inputs: Costs) -> float:
        """The sequences after which the generalising strategy weighs as much as guessing; nan where it never does."""
        return self._crossing(inputs, GENERALISING, NEITHER)

    def _crossing(self, inputs: Costs, later: int, earlier: int) -> float:
        price = LN2 * (_power(inputs.bits[later], self.b) - _power(inputs.bits[earlier], self.b))
        gain = self.g * (inputs.losses[earlier] - inputs.losses[later])
        return (price / gain) ** (1 / (1 - self.a)) if price > 0 and gain > 0 else float("nan")

    def draw(self, random: np.random.Generator, inputs: Sequence[Costs], last: float) -> "Bayes":
        """The theory with a from .1 to .7, and b and g such that in the middle cell (by bits) generalising begins after
        .01 to .1 of the training, and memorising overtakes it at 3 to 30 times that, both even in log-time."""
        middle = sorted(inputs, key=lambda one: one.bits[MEMORISING])[len(inputs) // 2]
        a = float(random.uniform(0.1, 0.7))
        onset = last * 10 ** float(random.uniform(-2, -1))
        ratio = 10 ** float(random.uniform(np.log10(3), np.log10(30)))
        gains = middle.losses[[NEITHER, GENERALISING]] - middle.losses[[GENERALISING, MEMORISING]]
        wanted = ratio ** (1 - a) * max(gains[1], 1e-6) / gains[0]

        ratio_of_bits = middle.bits[MEMORISING] / middle.bits[GENERALISING]
        b = min(float(np.log1p(wanted) / np.log(ratio_of_bits)), 1.5)
        g = LN2 * middle.bits[GENERALISING] ** b / (gains[0] * onset ** (1 - a))
        return Bayes(self.complexity, a, b, float(g))


def _power(bits: float, b: float) -> float:
    return bits**b if bits > 0 else 0.0


def _starts(seen: Sequence[Seen], sequences: Float[np.ndarray, " row"]) -> list[list[float]]:
    """A grid of a and b, each with the evidence that puts the turn of the middle cell, or its onset, to several times
    in and after training."""
    middle = sorted((one.inputs for one in seen), key=lambda one: one.bits[MEMORISING])[len(seen) // 2]
    times = np.geomspace(sequences.min(), 10 * sequences.max(), 8)
    pairs = [(MEMORISING, GENERALISING), (GENERALISING, NEITHER)]
    starts = []
    for a in (0.0, 0.3, 0.6, 0.8, 0.9):
        for b in (0.001, 0.01, 0.05, 0.15, 0.3, 0.6):
            for late, early in pairs:
                price = LN2 * (_power(middle.bits[late], b) - _power(middle.bits[early], b))
                gain = middle.losses[early] - middle.losses[late]
                if price > 0 and gain > 0:
                    starts += [
                        [a, float(np.log(b)), float(np.log(price / gain) - (1 - a) * np.log(n / UNIT))] for n in times
                    ]
    return starts or [[0.5, -1.0, 0.0]]
