r"""T4 and T5: which strategy is used, told from what each of two costs when it is learned alone.

Both see two pure runs and nothing of the mixed one (`pure.PureRuns`): C_s(n), the cumulative loss of strategy s after n
sequences. A strategy that has not been learned yet cannot be used. So with a(n) the preference for the context, and k_s
the share of its first loss that a pure run has lost (`Course.skill_at`), the fractions are a k_context for
generalising, (1 - a) k_weights for memorising, and neither for the rest. The papers speak of a(n) only; the factors k
are ours, without a parameter.

*Gate by regret* (Chan et al. 2024, arXiv 2410.23042): the predictor is a g + (1 - a) h, and learning the gate by
exponential weights gives a(n) = softmax(-eta C_s(n)). One parameter, eta.

*Relative cost* (Ku et al. 2025, arXiv 2505.09855): first comes the strategy with the smaller codelength C_s, last the
one with the smaller asymptotic loss. The turn is where the codelengths cross, n = T: a logistic curve in log-time,
1 / (1 + (n / T)^k) for the first one. One parameter, k. Codelengths that have not crossed at the end of the pure runs
go on growing by their last losses; if these keep the order, there is no turn.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from jaxtyping import Float, Num

from ebbtide.contest.fitting import join, logistic, loss_and_slope, minimise_value
from ebbtide.contest.pure import PureRuns, pure_runs
from ebbtide.contest.theory import Facts, Fractions, Seen


class PureCosts(msgspec.Struct, frozen=True):
    """What T4 and T5 share: they see two pure runs, and fit one positive number."""

    value: float = float("nan")

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def free(self) -> int:
        return 1

    @property
    def needs_pure(self) -> bool:
        return True

    def inputs(self, facts: Facts) -> PureRuns:
        """The two pure runs. Raises `InputError` where the cell has none."""
        return pure_runs(facts, self.name)

    def parameters(self) -> Mapping[str, float]:
        raise NotImplementedError

    def preference(self, inputs: PureRuns, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """a(n), how much learning in context is preferred, 0 to 1."""
        raise NotImplementedError

    def limits(self, inputs: Sequence[PureRuns], last: float) -> tuple[float, float]:
        """The range of the parameter that draws are taken from, of cells that train for `last` sequences."""
        raise NotImplementedError

    def predict(self, inputs: PureRuns, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The preference, times how far each strategy has been learned."""
        context, weights = (one.skill_at(sequences) for one in inputs)
        return _share(self.preference(inputs, sequences), context, weights)

    def fit(self, seen: Sequence[Seen]) -> "PureCosts":
        """The theory with the parameter of the least divergence: the best of a grid of `STARTS` around the range of
        draws, and from there to the minimum."""
        rows = join(seen)
        full = [(one.inputs, one.sequences) for one in seen if len(one.sequences)]
        skills = np.concatenate([[run.skill_at(at) for run in runs] for runs, at in full], axis=1)

        def value(log: np.ndarray) -> float:
            theory = type(self)(float(np.exp(log[0])))
            preference = np.concatenate([theory.preference(runs, at) for runs, at in full])
            return loss_and_slope(rows, _share(preference, skills[0], skills[1]))[0]

        low, high = np.log(self.limits([runs for runs, _ in full], float(rows.sequences.max())))
        around = (low - 7.0, high + 7.0)
        starts = [[one] for one in np.linspace(*around, STARTS)] if np.isnan(self.value) else [[np.log(self.value)]]
        return type(self)(float(np.exp(minimise_value(value, [around], starts)[0])))

    def draw(self, random: np.random.Generator, inputs: Sequence[PureRuns], last: float) -> "PureCosts":
        """The theory with a parameter from its range, even in the logarithm."""
        return type(self)(float(np.exp(random.uniform(*np.log(self.limits(inputs, last))))))


STARTS = 29


class RegretGate(PureCosts, frozen=True):
    """T4, the gate by regret. `value` is eta, one over nats times sequences."""

    @property
    def name(self) -> str:
        return "regret gate"

    def preference(self, inputs: PureRuns, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """softmax(-eta C): one half where both strategies have cost the same."""
        context, weights = (one.spent_at(sequences) for one in inputs)
        return logistic(self.value * (weights - context))

    def limits(self, inputs: Sequence[PureRuns], last: float) -> tuple[float, float]:
        """From 3 to 30 over the largest difference of cumulative losses within the training."""
        at = np.linspace(0, last, 50)
        most = max(float(np.abs(one.in_weights.spent_at(at) - one.in_context.spent_at(at)).max()) for one in inputs)
        return 3 / max(most, 1e-12), 30 / max(most, 1e-12)

    def parameters(self) -> Mapping[str, float]:
        return {"eta": self.value}


class RelativeCost(PureCosts, frozen=True):
    """T5, relative cost. `value` is k, the sharpness of the turn in log-time."""

    @property
    def name(self) -> str:
        return "relative cost"

    def preference(self, inputs: PureRuns, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """1 / (1 + (n / T)^k) if learning in context is first, and 1 less that if it is last."""
        turn, context_first = turn_of(inputs)
        if turn == np.inf:
            first = np.ones(len(sequences))
        else:
            first = logistic(-self.value * np.log(np.asarray(sequences, np.float64) / turn))
        return first if context_first else 1 - first

    def limits(self, inputs: Sequence[PureRuns], last: float) -> tuple[float, float]:
        """From 1 to 10."""
        return 1.0, 10.0

    def parameters(self) -> Mapping[str, float]:
        return {"k": self.value}


def turn_of(runs: PureRuns) -> tuple[float, bool]:
    """The sequences after which the cumulative losses cross for the last time (inf: never), and whether learning in
    context has the smaller one before."""
    at = np.unique(np.concatenate([runs.in_context.sequences, runs.in_weights.sequences]))
    lead = runs.in_weights.spent_at(at) - runs.in_context.spent_at(at)  # above 0: learning in context is cheaper
    gain = runs.in_weights.end - runs.in_context.end
    if lead[-1] * gain < 0:  # the one that is behind at the end of the runs catches up later
        return float(at[-1] - lead[-1] / gain), bool(lead[-1] > 0)
    crossed = np.flatnonzero(lead[:-1] * lead[1:] < 0)
    if not len(crossed):
        return np.inf, bool(lead[-1] > 0)
    i = crossed[-1]
    return float(at[i] - lead[i] * (at[i + 1] - at[i]) / (lead[i + 1] - lead[i])), bool(lead[i] > 0)


def _share(
    preference: Float[np.ndarray, " time"], context: Float[np.ndarray, " time"], weights: Float[np.ndarray, " time"]
) -> Fractions:
    generalising, memorising = preference * context, (1 - preference) * weights
    return np.stack([generalising, memorising, 1 - generalising - memorising], axis=1)
