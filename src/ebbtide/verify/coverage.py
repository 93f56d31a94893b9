"""How often the intervals of a verdict cover the truth: simulations of members of known distributions."""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ebbtide.checks import Check
from ebbtide.evaluation.statistics import median_interval, share_interval

MEMBERS = (6, 9, 12, 15, 17, 20)
"""Numbers of members at which the interval of the median is closest to 95 %; at others it covers more often."""

SEED = 0


class Paths(NamedTuple):
    """Members that take one of two paths: the estimate of a member is normal with standard deviation `spread`, and
    lower by `gap` with probability `rare`. The member's world (its classes and its evaluation prompts) adds a normal
    number with standard deviation `world`.

    >>> Paths(rare=0.1)
    Paths(rare=0.1, gap=0.4, spread=0.01, world=0.0)
    """

    rare: float = 0.0
    gap: float = 0.4
    spread: float = 0.01
    world: float = 0.0

    def __str__(self) -> str:
        path = f"two paths, {self.rare:.0%} of seeds on the other" if self.rare else "one path"
        return path + (f", worlds differ by {self.world:g}" if self.world else "")

    def draw(self, n: int, draws: int, shared: bool = False) -> Float[np.ndarray, "{n} {draws}"]:
        """Estimates of `n` members, `draws` times; `shared`: all members of a draw share one world."""
        generator = np.random.default_rng((SEED, n, round(1000 * self.rare), round(1000 * self.world)))
        own = generator.normal(0, self.spread, (n, draws))
        other = generator.random((n, draws)) < self.rare
        return own - self.gap * other + generator.normal(0, self.world, (1 if shared else n, draws))

    def mean(self) -> float:
        """Mean of the distribution."""
        return -self.gap * self.rare

    def median(self) -> float:
        """Median of the distribution, by bisection."""
        from scipy.special import ndtr

        deviation = float(np.hypot(self.spread, self.world))
        low, high = -self.gap, self.gap
        while (middle := (low + high) / 2) not in (low, high):
            below = (1 - self.rare) * ndtr(middle / deviation) + self.rare * ndtr((middle + self.gap) / deviation)
            low, high = (middle, high) if below < 0.5 else (low, middle)
        return middle


PATHS = (Paths(), Paths(rare=0.05), Paths(rare=0.1), Paths(rare=0.2), Paths(rare=0.3), Paths(rare=0.1, world=0.03))
"""What this lab measures: seeds that agree, and seeds of which one in twenty, ten, five or three takes another path."""


@cache
def of_median(paths: Paths, n: int, shared: bool = False, draws: int = 100_000) -> float:
    """The share of draws in which the interval of the median of n members covers the median of all."""
    low, high = median_interval(paths.draw(n, draws, shared))
    return _covered(low, high, paths.median())


@cache
def of_mean(paths: Paths, n: int, draws: int = 40_000) -> float:
    """The share of draws in which Student's 95 % interval of the mean of n members covers the mean of all: what this
    lab printed until 2026-11-29."""
    from scipy.special import stdtrit

    values = paths.draw(n, draws)
    half = stdtrit(n - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(n)
    middle = values.mean(axis=0)
    return _covered(middle - half, middle + half, paths.mean())


@cache
def of_share(share: float, n: int) -> float:
    """The probability that the exact interval of a share covers it, of n members of which each is above with
    probability `share`."""
    from scipy.special import comb

    counts = np.arange(n + 1)
    probability = comb(n, counts) * share**counts * (1 - share) ** (n - counts)
    ends = np.array([share_interval(int(count), n) for count in counts])
    return float(probability[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum())


def table() -> dict[str, dict[str, float]]:
    """Coverage by interval and distribution, then by number of members."""
    found = {f"median: {paths}": {str(n): of_median(paths, n) for n in MEMBERS} for paths in PATHS}
    one_world = Paths(world=0.03)
    found[f"median: {one_world}, one for all members"] = {str(n): of_median(one_world, n, True) for n in MEMBERS}
    for share in (0.5, 0.8, 0.9):
        found[f"share: {share:.0%} of seeds"] = {str(n): of_share(share, n) for n in MEMBERS}
    for paths in (Paths(), Paths(rare=0.1)):
        found[f"mean, by Student: {paths}"] = {str(n): of_mean(paths, n) for n in MEMBERS}
    return found


def interval_coverage() -> Check:
    """The check that the interval of the median covers it in 93 to 97 of 100 draws, and that of a share in at least
    95."""
    medians = [of_median(paths, n) for paths in PATHS for n in MEMBERS]
    shares = [of_share(share, n) for share in (0.5, 0.8, 0.9) for n in MEMBERS]
    passed = min(medians) > 0.93 and max(medians) < 0.97 and min(shares) >= 0.95
    words = f"median {min(medians):.1%} to {max(medians):.1%}, share {min(shares):.1%} to {max(shares):.1%}"
    return Check("intervals cover the truth", passed, words)


def _covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    inside: Bool[np.ndarray, " draws"] = (low <= truth) & (truth <= high)
    return float(inside.mean())
