"""The judgement of theories on one split: fits, scores on what was held out, differences between theories.

A theory is fitted to the means over the members, and again to the means over each of their resamples (`resampling`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.contest.events import EVENTS, Event, Events, events_of, time_error
from ebbtide.contest.resampling import Interval, Members, interval, stretch_of
from ebbtide.contest.scores import coverage, curve_error, divergence
from ebbtide.contest.splits import FITTED_SEEDS, Parts, Split
from ebbtide.contest.theory import GENERALISING, STRATEGIES, Facts, Fractions, Seen, Theory
from ebbtide.errors import InputError, require
from ebbtide.user_code import explain


class TimeScore(NamedTuple):
    """How well a theory tells when an event was, over the cells in which it was held out.

    Args:
        error: mean of |log10(predicted / observed)| over the cells in which both curves have the event; nan: none.
        missed: the number of cells in which only one of the two has it.
        cells: the number of cells in which one of the two has it.
    """

    error: float
    missed: int
    cells: int


class Score(NamedTuple):
    """A theory's score on the cells that a split holds out.

    Args:
        theory: the theory as it was fitted to the means of all members.
        divergence: mean over cells of `scores.divergence`, nats.
        resampled: that mean for every resample of the members.
        curve_error: mean over cells of `scores.curve_error`.
        coverage: mean over cells of `scores.coverage`.
        times: by event.
        parameters: the ends of the 95 % interval of every parameter, by its name.
        predicted: the fractions of every cell that is scored, at all of its times, by the cell's place in the split.
        drawn: the same for every resample.
    """

    theory: Theory
    divergence: float
    resampled: Float[np.ndarray, " resample"]
    curve_error: float
    coverage: float
    times: Mapping[str, TimeScore]
    parameters: Mapping[str, Interval]
    predicted: Mapping[int, Fractions]
    drawn: Mapping[int, Float[np.ndarray, "resample time strategy"]]


def read_inputs(theory: Theory, facts: Sequence[Facts]) -> list[Any]:
    """What a theory uses of every cell. Raises `InputError` where it says nothing of one of them."""
    return [_of(theory, "inputs", theory.inputs, one) for one in facts]


def score_theory(
    theory: Theory,
    inputs: Sequence[Any],
    split: Split,
    resampled: Sequence[Members],
    report: Callable[[int], Any] = lambda done: None,
) -> Score:
    """The score of a theory on a split.

    Args:
        theory: not fitted.
        inputs: what it uses of every cell (`read_inputs`), in the order of the split's parts.
        split: the parts of the cells.
        resampled: members drawn from the split's (`resampling.resample_members`).
        report: is told how many resamples are done.

    Raises:
        InputError: the theory cannot be fitted, or predicts what are no fractions.
    """
    fitted, predicted = _fit_and_predict(theory, split, inputs, split.fitted_members)
    parameters = {name: [value] for name, value in fitted.parameters().items()}
    drawn: dict[int, list[Fractions]] = {i: [] for i in predicted}
    for i, members in enumerate(resampled):
        again, fractions = _fit_and_predict(fitted, split, inputs, members.fitted)
        for place, one in fractions.items():
            drawn[place].append(one)
        for name, value in again.parameters().items():
            parameters[name].append(value)
        report(i + 1)
    members, wide = split.scored_members, stretch_of(split)
    draws = {place: np.stack(one) for place, one in drawn.items()}
    return Score(
        theory=fitted,
        divergence=_mean_divergence(split, predicted, members),
        resampled=_mean_divergences(split, draws, [one.scored for one in resampled]),
        curve_error=_mean_error(split, predicted, members),
        coverage=_mean_coverage(split, draws, members),
        times=_time_scores(split, predicted, members),
        parameters={name: interval(values[0], np.asarray(values[1:]), wide) for name, values in parameters.items()},
        predicted=predicted,
        drawn=draws,
    )


def held_out_divergence(theory: Theory, inputs: Sequence[Any], split: Split) -> float:
    """The divergence of a theory on a split, without intervals; arguments and errors are those of `score_theory`."""
    _, predicted = _fit_and_predict(theory, split, inputs, split.fitted_members)
    return _mean_divergence(split, predicted, split.scored_members)


def score_interval(score: Score, split: Split) -> Interval:
    """The 95 % interval of a theory's divergence, nats, and never below 0."""
    low, high = interval(score.divergence, score.resampled, stretch_of(split))
    return max(low, 0.0), high


def noise_floor(split: Split) -> float:
    """The divergence between two groups of the same cells' members, nats: of the mean over the last 60 % of the scored
    members from that over the first 40 %. No theory can be expected to do much better."""
    members = split.scored_members
    if not np.array_equal(split.fitted_members, split.scored_members):
        few, rest = split.fitted_members, members
    else:
        count = max(1, int(FITTED_SEEDS * len(members)))
        few, rest = members[:count], members[count:]
    predicted = {i: one.cell.fractions[few].mean(axis=0) for i, one in enumerate(split.parts) if one.scored.any()}
    return _mean_divergence(split, predicted, rest)


def check_theory(theory: Any) -> Theory:
    """The theory, if it is one. Raises `InputError` naming what it lacks."""
    if not isinstance(theory, type) and isinstance(theory, Theory):
        return theory
    wanted = ("name", "free", "needs_pure", "inputs", "fit", "predict", "parameters")
    lacking = [name for name in wanted if not hasattr(theory, name)]
    what = f"has no {', '.join(lacking)}" if lacking else "is a class, not one of its objects"
    raise InputError("theories", getattr(theory, "__name__", None) or type(theory).__name__, f"is no theory: {what}")


def _fit_and_predict(
    theory: Theory, split: Split, inputs: Sequence[Any], members: Int[np.ndarray, " member"]
) -> tuple[Theory, dict[int, Fractions]]:
    """The theory fitted to the means over some members, and its predictions of the cells that are scored."""
    seen = [
        Seen(own, one.cell.sequences[one.fitted], one.cell.fractions[members].mean(axis=0)[one.fitted])
        for own, one in zip(inputs, split.parts, strict=True)
        if one.fitted.any()
    ]
    fitted = _of(theory, "fit", theory.fit, seen)
    return fitted, {
        i: _prediction(fitted, own, one)
        for i, (own, one) in enumerate(zip(inputs, split.parts, strict=True))
        if one.scored.any()
    }


def _prediction(theory: Theory, inputs: Any, parts: Parts) -> Fractions:
    times = parts.cell.sequences
    found = np.asarray(_of(theory, "predict", theory.predict, inputs, times), np.float64)
    allowed = f"must predict {len(STRATEGIES)} fractions with sum 1 at every time"
    shaped = found.shape == (len(times), len(STRATEGIES))
    require(shaped, f"{theory.name}, {parts.cell.facts.name}", found.shape, allowed)
    good = np.isfinite(found).all(axis=1) & (found.min(axis=1) > -1e-6) & np.isclose(found.sum(axis=1), 1, atol=1e-6)
    require(bool(good.all()), f"{theory.name}, {parts.cell.facts.name}", found[good.argmin()].tolist(), allowed)
    return found


def _of(theory: Theory, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """What a method of a theory returns. An error of a user's own theory becomes an `InputError` with its line."""
    try:
        return call(*arguments)
    except InputError:
        raise
    except Exception as error:  # whatever a user's theory raises is why it takes no part; all else is a bug
        own = explain(error)
        if own is None:
            raise
        raise InputError("theories", f"{theory.name}.{what}", own.allowed) from error


def _scored(split: Split, predicted: Mapping[int, Fractions]) -> list[tuple[Parts, Fractions]]:
    return [(split.parts[i], fractions) for i, fractions in predicted.items()]


def _mean_divergence(split: Split, predicted: Mapping[int, Fractions], members: Int[np.ndarray, " member"]) -> float:
    drawn = {i: fractions[None] for i, fractions in predicted.items()}
    return float(_mean_divergences(split, drawn, [members])[0])


def _mean_divergences(
    split: Split,
    drawn: Mapping[int, Float[np.ndarray, "resample time strategy"]],
    members: Sequence[Int[np.ndarray, " member"]],
) -> Float[np.ndarray, " resample"]:
    """For every resample the mean over cells of the divergence of its predictions from the mean over its members."""
    found = []
    for i, fractions in drawn.items():
        cell, scored = split.parts[i].cell, split.parts[i].scored
        measured = np.stack([cell.fractions[one].mean(axis=0)[scored] for one in members])
        found.append(divergence(measured, fractions[:, scored], cell.sequences[scored]))
    return np.mean(found, axis=0)


def _mean_error(split: Split, predicted: Mapping[int, Fractions], members: Int[np.ndarray, " member"]) -> float:
    found = [
        curve_error(one.cell.fractions[members].mean(axis=0)[one.scored], p[one.scored], one.cell.sequences[one.scored])
        for one, p in _scored(split, predicted)
    ]
    return float(np.mean(found))


def _mean_coverage(
    split: Split, drawn: Mapping[int, Float[np.ndarray, "resample time strategy"]], members: Int[np.ndarray, " member"]
) -> float:
    """A prediction of a resample, and the chance of a mean over so many members: normal, with the spread between
    members in the parts that were fitted, which is all that a theory could know."""
    random, spread = np.random.default_rng(1), _spread(split) / np.sqrt(len(members))
    found = []
    for i, fractions in drawn.items():
        one = split.parts[i]
        noisy = fractions[:, one.scored] + spread * random.standard_normal((len(fractions), int(one.scored.sum()), 1))
        mean = one.cell.fractions[members].mean(axis=0)[one.scored]
        found.append(coverage(mean, noisy, one.cell.sequences[one.scored]))
    return float(np.mean(found))


def _spread(split: Split) -> float:
    """Standard deviation between members of the generalising fraction, root mean square over fitted times and cells."""
    members = split.fitted_members if len(split.fitted_members) > 1 else split.scored_members
    variances = [one.cell.fractions[members][:, one.fitted, GENERALISING].var(axis=0, ddof=1) for one in split.parts]
    return float(np.sqrt(np.concatenate(variances).mean()))


def _time_scores(
    split: Split, predicted: Mapping[int, Fractions], members: Int[np.ndarray, " member"]
) -> dict[str, TimeScore]:
    errors: dict[str, list[float]] = {name: [] for name in EVENTS}
    for one, fractions in _scored(split, predicted):
        observed = events_of(one.cell.sequences, one.cell.fractions[members].mean(axis=0))
        told = events_of(one.cell.sequences, fractions)
        first = float(one.cell.sequences[one.scored][0])
        for name in EVENTS:
            if _is_held_out(observed, name, first):
                errors[name].append(time_error(observed[name], told[name]))
    return {name: _time_score(np.asarray(found, np.float64)) for name, found in errors.items()}


def _is_held_out(observed: Events, name: str, first: float) -> bool:
    """Whether an event was not before the times that are scored; one that the cell does not have was not."""
    event: Event | None = observed[name]
    return event is None or event.sequences >= first


def _time_score(errors: Float[np.ndarray, " cell"]) -> TimeScore:
    finite = errors[np.isfinite(errors)]
    return TimeScore(
        float(finite.mean()) if len(finite) else float("nan"),
        int(np.isinf(errors).sum()),
        int((~np.isnan(errors)).sum()),
    )
