"""Made-up evidence of study `forecast`: members that fall when a perfect forecaster says so."""

from functools import lru_cache

import numpy as np
import pytest

from ebbtide.papers.forecast import study
from ebbtide.papers.forecast.events import FEATURES, LATER, LEVELS, MEAN_OF, MOMENTS, course_of
from ebbtide.papers.forecast.forecaster import Forecaster, Members, learn
from ebbtide.papers.forecast.study import FALLS, FORECAST, KEEPS
from ebbtide.studies.evidence import Arm, Evidence
from ideal_tools import specs_of, untrained

ONSET = 35_000
IWL = FEATURES.index("iwl")


def members() -> Members:
    """Members whose fall follows from IWL alone, exactly."""
    features = np.random.default_rng(0).normal(size=(24, len(FEATURES)))
    return Members(features, 13.3 - 0.4 * features[:, IWL], np.ones(24, bool))


@lru_cache(maxsize=1)
def perfect() -> Forecaster:
    """A forecaster that has learned from such members."""
    return learn(members())


@lru_cache(maxsize=1)
def ignorant() -> Forecaster:
    """A forecaster that has learned from the same features and times in pairs that were drawn at random."""
    drawn = np.random.default_rng(1).permutation(24)
    return learn(members()._replace(times=members().times[drawn]))


def stand_in_forecast(monkeypatch: pytest.MonkeyPatch, forecaster: Forecaster | None = None) -> None:
    """Puts a forecaster (the perfect one) in the place of the published ones."""
    monkeypatch.setattr(study, "published", lambda moment: forecaster or perfect())


def curves_of(times: np.ndarray, sequences: np.ndarray, falls: np.ndarray) -> dict[str, np.ndarray]:
    """Curves of members for whose fall the perfect forecaster says `times`, at both moments, and who fall at `falls`
    (nan: never). Of the features only IWL differs between members."""
    found = {name: np.zeros((len(times), len(sequences))) for name in ("train_loss", *LEVELS[1:])}
    found |= {"sequences": sequences, "steps": sequences // 16}
    at = {"onset": int(np.flatnonzero(sequences >= ONSET)[0]), "later": int(np.flatnonzero(sequences <= LATER)[-1])}
    late = sequences >= np.where(np.isnan(falls), np.inf, falls)[:, None]
    found["icl"][:] = np.where(np.arange(len(sequences)) < at["onset"], 0.5, np.where(late, 0.6, 0.95))
    for moment in MOMENTS:
        line, window = perfect().line, slice(at[moment] - MEAN_OF + 1, at[moment] + 1)
        for name, level in zip(LEVELS, line.middle[1:], strict=False):
            if name != "icl":
                found[name.replace(" ", "_")][:, window] = np.exp(level) if name == "train loss" else level
        said = []
        for change in (0.0, 1.0):
            found["iwl"][:, window] += change
            said.append(line.predict(course_of(found, moment).features))
        moved = (np.log(times) - said[0]) / (said[1] - said[0]) - 1.0
        found["iwl"][:, window] += moved[:, None]
    return found


def evidence() -> Evidence:
    """Evidence of members who fall when the perfect forecaster says so; with L2 they keep ICL, as is forecast."""
    specs = specs_of(FORECAST, FORECAST.experiments[0], "quick")
    grids = {
        arm: np.asarray(spec.schedule.points(spec.sequences, spec.batch), np.float64) for arm, spec in specs.items()
    }
    members, grid = specs[FALLS].members, grids[FALLS]
    times = np.exp(np.linspace(np.log(0.3 * grid[-1]), np.log(0.9 * grid[-1]), members))
    times = grid[np.abs(grid[:, None] - times).argmin(0)]
    beyond, never = np.full(members, 2.0 * grid[-1]), np.full(members, np.nan)
    curves = {FALLS: curves_of(times, grid, times), KEEPS: curves_of(beyond, grids[KEEPS], never)}
    states = ("finished",) * members
    return Evidence({name: Arm(one, {"icl": 0.5}, states) for name, one in curves.items()})


def _fall(experiment, preset: str) -> tuple[Evidence, Evidence]:
    return evidence(), untrained(specs_of(FORECAST, experiment, preset))


ON_FORECASTS = {"forecast/fall": _fall}
