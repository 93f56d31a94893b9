"""Claims that several experiments of the transience paper make: ICL rises, falls, and nothing else shows it."""

import numpy as np

from ebbtide.studies.claim import Claim, above
from ebbtide.studies.evidence import ONLY, Evidence

HALF = 0.75
"""Half the way of ICL from chance (.5) to 1."""

FIFTH = 0.2
"""A fifth of all answers: the size of the fall where the paper shows a curve."""

TENTH = 0.1
"""A tenth of all answers: the size that a difference must have where the paper gives only its direction."""

RISES, FALLS = "ICL rises half the way from chance to 1", "ICL then falls by a fifth of all answers"


def rises(name: str, statement: str, arm: str, evaluator: str = "icl") -> Claim:
    """The claim that an accuracy on two labels rises half the way from chance to 1."""
    source = "Fig. 1: towards the ceiling; half the way from chance (0.5) to 1"
    return above(name, statement, source, f"{evaluator}_peak", arm, HALF)


def falls(name: str, statement: str, arm: str, evaluator: str = "icl") -> Claim:
    """The claim that an accuracy falls from its peak to the end by a fifth of all answers."""

    def estimate(evidence: Evidence) -> np.ndarray:
        return evidence.scalar(arm, f"{evaluator}_peak") - evidence.scalar(arm, f"{evaluator}_final")

    metric = f"{evaluator}_peak - {evaluator}_final" + (f" ({arm})" if arm else "")
    arms = (arm,) if arm else ()
    return Claim(name, statement, "Fig. 1; size: a fifth of all answers", metric, FIFTH, estimate, arms)


def transience_claims(arm: str = ONLY) -> tuple[Claim, ...]:
    """The claims of the paper's Fig. 1 and abstract on one arm."""
    prefix, of = (f"{arm}: ", f" ({arm})") if arm else ("", "")
    arms = (arm,) if arm else ()

    def named(name: str) -> str:
        return f"{arm} {name}" if arm else name

    def rise_meanwhile(name: str, source: str) -> Claim:
        return Claim(
            named(name),
            f"{prefix}{name.upper()} rises from the ICL peak on",
            source,
            f"{name} at the end - {name} at the ICL peak{of}",
            0.3,
            lambda evidence: evidence.scalar(arm, f"{name}_final") - evidence.scalar(arm, f"{name}_at_peak"),
            arms,
        )

    def hidden(evidence: Evidence) -> np.ndarray:
        scalar = {name: evidence.scalar(arm, name) for name in NEEDED}
        loss = 1 - scalar["train_loss_final"] / scalar["train_loss_at_peak"]
        accuracy = scalar["train_final"] - scalar["train_at_peak"]
        return np.minimum(np.minimum(loss, accuracy), scalar["transience"] - TENTH)

    return (
        rises(named("rise"), f"{prefix}{RISES}", arm),
        falls(named("fall"), f"{prefix}{FALLS}", arm),
        rise_meanwhile("iwl", "Fig. 1"),
        rise_meanwhile("ciwl", "2503.05631, Fig. 1b: what replaces ICL still reads the labels in context"),
        Claim(
            named("hidden"),
            f"{prefix}ICL falls by a tenth while training loss and validation accuracy improve",
            "abstract: neither reveals the fall",
            f"smallest of: share by which the loss falls from the ICL peak on, rise of train meanwhile, "
            f"fall of icl - 0.1{of}",
            0.0,
            hidden,
            arms,
        ),
    )


NEEDED = ("train_loss_final", "train_loss_at_peak", "train_final", "train_at_peak", "transience")


def persists(name: str, statement: str, source: str, arm: str) -> Claim:
    """The claim that an arm learns ICL and does not lose it: a small fall alone would be true of a model that never
    had it."""

    def estimate(evidence: Evidence) -> np.ndarray:
        return np.minimum(evidence.scalar(arm, "icl_peak") - HALF, TENTH - evidence.scalar(arm, "transience"))

    metric = f"smaller of: icl_peak - {HALF:g}, {TENTH:g} - transience ({arm})"
    return Claim(name, statement, source, metric, 0.0, estimate, (arm,))


def falls_later(name: str, statement: str, source: str, arm: str, than: str) -> Claim:
    """The claim that ICL of `arm` has fallen half-way to chance later than that of `than`. A member of `arm` that has
    not fallen so far by the end counts as falling then; one of `than` has no estimate."""

    def estimate(evidence: Evidence) -> np.ndarray:
        ours, theirs = (evidence.scalar(one, "half_decay_sequences") for one in (arm, than))
        end = evidence.sequences()
        return np.where(np.isnan(ours) & np.isfinite(evidence.scalar(arm, "icl_final")), end, ours) - theirs

    metric = f"sequences until icl has fallen half-way from its peak to chance: {arm} - {than}"
    return Claim(name, statement, source, metric, 0.0, estimate, (arm, than))
