"""Intervals over members: what one run of a few seeds says about all seeds."""

import numpy as np
from jaxtyping import Float

INTERVAL = "95 % Student interval of the mean over members"


def interval(
    values: Float[np.ndarray, "members *rest"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Confidence interval of the mean over n members: mean -+ t_{(1 + level)/2, n - 1} sd / sqrt(n).

    Student's, not a bootstrap: with the four members of a quick run any percentile bootstrap of the
    mean stays within the members' range, which covers the true mean 7 times in 8 at best (LOG.md,
    2026-11-23). With one member there is no interval: both ends are nan.
    """
    n = values.shape[0]
    if n < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    from scipy.special import stdtrit

    x = values.astype(np.float64)
    half = stdtrit(n - 1, 0.5 + level / 2) * x.std(axis=0, ddof=1) / np.sqrt(n)
    return np.asarray(x.mean(axis=0) - half), np.asarray(x.mean(axis=0) + half)
