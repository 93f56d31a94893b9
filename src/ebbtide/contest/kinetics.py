r"""T2, the theory of learning kinetics of Nguyen & Reddy 2024 (arXiv 2412.00104).

One head of attention gives a label in context the weight w, with sharpness b: with N pairs in context the score of the
right label is $\phi + w\, (e^b + 2 n_+ - N) / (e^b + N)$, where $\phi$ is what the weights remember of the query and
$n_+$ counts the right label in context. *Acquisition*, while $e^b \ll N$:
$$\frac{dw}{d\tau} = e^b - c_2 w, \qquad \frac{db}{d\tau} = w e^b, \qquad
\tau = \frac{\mathrm{rate}}{N} I, \quad I(t) = \int_0^t c_1 dt',$$
which diverges at a finite $\tau^*$: ICL comes abruptly when memory has left over enough, and not at all where memory is
complete before. Without the noise of the other labels ($c_2 = 0$), $\tau^* = e^{-b_0} \sqrt{\pi/2}\, e^{w_0^2/2}
\mathrm{erfc}(w_0 / \sqrt 2)$. *Afterwards* gradient and decay $\lambda$ of the attention balance: $w = W(c_3 /
\lambda)$, Lambert's W. Without decay w grows without end, and ICL stays.

$c_1 = \langle\sigma(-\phi_+)\rangle$, the mean probability of wrong labels,
$c_2 = 1 - \langle\sigma(-\phi_+)^2\rangle / c_1$ and $c_3 = \langle e^{-\phi_+}\rangle$ are those of memory alone.
They are read from the training loss L of a run that can only memorise (`pure.PureRuns.in_weights`), as if the score
were the same on all prompts:
$e^{-\phi_+} = (e^L - 1) / (\text{labels} - 1) = c_3$, $c_1 = c_3 / (1 + c_3)$; and $c_2 = 1/2$, its value while little
is remembered.

Ours is the way from scores to fractions, which has no parameter. Each of two sources knows an answer with a probability
that is 2 sigmoid(score) - 1, and where both know one, the answer of the larger score is given more often:
$$g = \tanh \frac{u}{2},\quad m = \tanh \frac{\phi_+}{2}, \qquad G = g\,(1 - m\, \sigma(\phi_+ - u)), \quad
M = m\,(1 - g\, \sigma(u - \phi_+)),$$
with $u = w\, e^b / (e^b + N)$ the score by the context, and neither for the rest, $(1 - g)(1 - m)$. So is the rate: the
paper's is that of SGD, and for other optimisers it is an effective one. Two parameters: b0 (w0 = 0), and a factor of
the spec's learning rate.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float, Num
from scipy.special import lambertw

from ebbtide.contest.fitting import join, logistic, loss_and_slope, minimise_value
from ebbtide.contest.pure import course_of
from ebbtide.contest.theory import Facts, Fractions, Seen
from ebbtide.errors import InputError, require
from ebbtide.traced import kind_name
from ebbtide.training.spec import Spec

C2 = 0.5
SHARPNESS = (-4.0, 2.0)
"""Range of b0. Below it only the time scale changes, as e^(-2 b0)."""
LOG_RATES = (-9.0, 9.0)
CERTAIN = 40.0
"""Largest score, nats: without decay w has no end."""


class Path(NamedTuple):
    """Solutions of the two equations from several b0: tau, w and b at every step [step, start]. tau at the last step is
    that of the divergence."""

    tau: Float[np.ndarray, "step start"]
    w: Float[np.ndarray, "step start"]
    b: Float[np.ndarray, "step start"]


def solve(
    b0: Float[np.ndarray, " start"], w0: float = 0.0, c2: float = C2, step: float = 0.05, most: float = 20.0
) -> Path:
    """The path of w and b from (w0, b0) until b passes `most` for every start, by the classical Runge-Kutta method in
    the time s with d tau = ds / (e^b + |w|), in which nothing diverges.

    >>> from ebbtide.contest.kinetics import solve
    >>> round(float(solve(np.array([0.0]), c2=0.0).tau[-1, 0]), 3)  # sqrt(pi / 2)
    1.253
    """
    state = np.stack([np.zeros_like(b0), np.full_like(b0, w0), b0])

    def slope(state: np.ndarray) -> np.ndarray:
        _, w, b = state
        pull = np.exp(np.minimum(b, most + 1))
        speed = 1 / (pull + np.abs(w))
        moving = b < most
        return np.stack([speed, (pull - c2 * w) * speed, w * pull * speed]) * moving

    path = [state]
    while (state[2] < most).any():
        require(len(path) < 100_000, "b0", float(b0.min()), "must be larger: w and b do not diverge from there")
        k1 = slope(state)
        k2 = slope(state + step / 2 * k1)
        k3 = slope(state + step / 2 * k2)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + slope(state + step * k3))
        path.append(state)
    return Path(*np.stack(path, axis=1))


@lru_cache(maxsize=1)
def _table() -> tuple[Float[np.ndarray, " start"], Path]:
    starts = np.linspace(*SHARPNESS, 61)
    return starts, solve(starts)


class KineticInputs(NamedTuple):
    """What the theory sees of a cell: `pairs` N in context, the `decay` of the attention, and of a run that only
    memorises, at `sequences`: `residual`, the learning rate times I over N, and `score`, phi_+ = -ln c3."""

    pairs: int
    decay: float
    sequences: Float[np.ndarray, " stretch"]
    residual: Float[np.ndarray, " stretch"]
    score: Float[np.ndarray, " stretch"]


class Kinetics(msgspec.Struct, frozen=True):
    """The theory of learning kinetics. `b0` is the sharpness of attention at the start, `rate` a factor of the learning
    rate."""

    b0: float = float("nan")
    rate: float = float("nan")

    @property
    def name(self) -> str:
        return "kinetics"

    @property
    def free(self) -> int:
        return 2

    @property
    def needs_pure(self) -> bool:
        return True

    def inputs(self, facts: Facts) -> KineticInputs:
        """The numbers of a cell. Raises `InputError` for one without spec, learning rate or memory-only run."""
        if facts.spec is None:
            raise InputError("spec", None, "must be known to the theory kinetics, for the learning rate and L2")
        require("in_weights" in facts.pure, "pure runs", sorted(facts.pure), "must have in_weights for kinetics")
        spec, course = facts.spec, course_of(facts.pure["in_weights"])
        labels = spec.outputs()
        require(labels >= 2, "task", kind_name(spec.task), "must have labels for the theory kinetics")
        odds = np.maximum(np.expm1(course.loss) / (labels - 1), 1e-12)
        residual = np.cumsum(odds / (1 + odds) * np.diff(course.sequences, prepend=0.0))
        lr, decay = _optimiser(spec)
        scale = lr / (spec.batch * spec.task.context)
        return KineticInputs(spec.task.context, decay, course.sequences, scale * residual, -np.log(odds))

    def fit(self, seen: Sequence[Seen]) -> "Kinetics":
        """The theory with the b0 and rate of the least divergence."""
        rows = join(seen)
        known = [_known(one.inputs, one.sequences) for one in seen if len(one.sequences)]
        every = _Known(*(np.concatenate(column) for column in zip(*known, strict=True)))

        def value(at: np.ndarray) -> float:
            return loss_and_slope(rows, Kinetics(float(at[0]), float(np.exp(at[1])))._fractions(every))[0]

        if np.isfinite(self.b0):
            starts = [[self.b0, float(np.log(self.rate))]]
        else:
            starts = [[b, r] for b in (-3.0, -1.5, 0.0, 1.5) for r in np.linspace(*LOG_RATES, 19)]
        b0, rate = minimise_value(value, [SHARPNESS, LOG_RATES], starts, 1e-3)
        return Kinetics(float(b0), float(np.exp(rate)))

    def predict(self, inputs: KineticInputs, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The fractions of a cell after so many sequences."""
        return self._fractions(_known(inputs, sequences))

    def context_score(self, inputs: KineticInputs, sequences: Num[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """u, the score that the context gives the right label."""
        return self._score(_known(inputs, sequences))

    def _fractions(self, known: "_Known") -> Fractions:
        context = self._score(known)
        g, m = np.tanh(context / 2), np.tanh(known.memory / 2)
        beaten = logistic(known.memory - context)
        return np.stack([g * (1 - m * beaten), m * (1 - g * (1 - beaten)), (1 - g) * (1 - m)], axis=1)

    def _score(self, known: "_Known") -> Float[np.ndarray, " row"]:
        path, tau = self._path(), self.rate * known.residual
        w, b = np.interp(tau, path.tau, path.w), np.interp(tau, path.tau, path.b)
        sharp = b >= known.log_pairs  # from then on the balance holds; before, it is a bound
        return np.where(sharp, known.balance, np.minimum(w, known.balance)) * logistic(b - known.log_pairs)

    def _path(self) -> "Path":
        starts, table = _table()
        place = float(np.clip(np.interp(self.b0, starts, np.arange(len(starts))), 0, len(starts) - 1))
        i = min(int(place), len(starts) - 2)
        part = place - i
        return Path(*((1 - part) * one[:, i] + part * one[:, i + 1] for one in table))

    def onset(self, inputs: KineticInputs) -> float:
        """The sequences at which the equations diverge; inf where memory is complete before."""
        needed = float(self._path().tau[-1]) / self.rate
        if needed > inputs.residual[-1]:
            return np.inf
        return float(np.interp(needed, np.append(0.0, inputs.residual), np.append(0.0, inputs.sequences)))

    def parameters(self) -> Mapping[str, float]:
        return {"b0": self.b0, "rate": self.rate}

    def draw(self, random: np.random.Generator, inputs: Sequence[KineticInputs], last: float) -> "Kinetics":
        """The theory with b0 from -2 to 1, and a rate by which ICL comes at .01 to .1 of the training of the middle
        cell, even in log-time."""
        b0 = float(random.uniform(-2, 1))
        onset = last * 10 ** float(random.uniform(-2, -1))
        middle = inputs[len(inputs) // 2]
        there = float(np.interp(onset, np.append(0.0, middle.sequences), np.append(0.0, middle.residual)))
        return Kinetics(b0, float(Kinetics(b0, 1.0)._path().tau[-1]) / there)


class _Known(NamedTuple):
    """What a fit does not change, at the times of some cells: `residual`, phi_+ of the weights (0 at least), the
    balance W(c3 / lambda), and log N."""

    residual: Float[np.ndarray, " row"]
    memory: Float[np.ndarray, " row"]
    balance: Float[np.ndarray, " row"]
    log_pairs: Float[np.ndarray, " row"]


def _known(inputs: KineticInputs, sequences: Num[np.ndarray, " row"]) -> _Known:
    at = np.asarray(sequences, np.float64)
    residual = np.interp(at, np.append(0.0, inputs.sequences), np.append(0.0, inputs.residual))
    memory = np.maximum(np.interp(at, inputs.sequences, inputs.score), 0.0)
    balance = np.full(len(at), CERTAIN)
    if inputs.decay:
        balance = np.minimum(lambertw(np.exp(-memory) / inputs.decay).real, CERTAIN)
    return _Known(residual, memory, balance, np.full(len(at), np.log(inputs.pairs)))


def _optimiser(spec: Spec) -> tuple[float, float]:
    """The learning rate, and the coefficient of L2 on the attention."""
    optimiser: Any = spec.optimizer
    decay = getattr(optimiser, "decay", None)
    if decay is None or decay.on not in ("attention", "all") or decay.form not in ("l2", "decoupled"):
        return float(optimiser.lr), 0.0
    return float(optimiser.lr), float(decay.coefficient)
