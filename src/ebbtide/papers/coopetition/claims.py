"""Claims of study `coopetition` on the phases of one arm and on the mechanism behind them.

Where the paper gives an accuracy the claims ask for it less a tenth of all answers.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.coopetition.grafts import Half, graft_curve
from ebbtide.papers.transience.claims import TENTH
from ebbtide.studies.claim import Claim, above
from ebbtide.studies.evidence import ONLY, Evidence, Series

Values = Float[np.ndarray, " member"]
CIWL_ENDS = 0.887
"""CIWL at the end, .987 in the paper, less a tenth."""
IWL_MOST = 0.0024
"""Largest IWL at the end: three times the paper's .0008."""


def flip_peak_sequences(evidence: Evidence, arm: str) -> Values:
    """Sequences at which each member's true ICL is highest."""
    curve = evidence.curve(arm, "flip")
    return curve.sequences[smooth(curve.values).argmax(1)].astype(float)


def phase_claims(arm: str = ONLY) -> tuple[Claim, ...]:
    """The claims of Fig. 1b on one arm: ICL comes, then goes, and CIWL is there after it."""
    arms, of = ((arm,), f" ({arm})") if arm else ((), "")

    def flip_fall(evidence: Evidence) -> Values:
        return evidence.scalar(arm, "flip_peak") - evidence.scalar(arm, "flip_final")

    def ciwl_rise(evidence: Evidence) -> Values:
        peak, ciwl = flip_peak_sequences(evidence, arm), evidence.curve(arm, "ciwl")
        return evidence.scalar(arm, "ciwl_final") - ciwl._replace(values=smooth(ciwl.values)).at(peak)

    return (
        above("icl", "ICL rises", "Fig. 1b (.89); a tenth less", "icl_peak", arm, 0.79),
        above("flip", "true ICL, against the weights, rises", "Fig. 1b (.71); a tenth less", "flip_peak", arm, 0.61),
        Claim(
            "turns",
            "and falls far below chance",
            "Fig. 1b (.71 to .03); a tenth less",
            f"flip_peak - flip_final{of}",
            0.58,
            flip_fall,
            arms,
        ),
        above("fades", "ICL falls", "Fig. 1b (.89 to .52); a tenth less", "transience", arm, 0.27),
        Claim(
            "order",
            "CIWL takes over after the best of true ICL",
            "Fig. 1b (.56 at the peak of Flip, .987 at the end); a tenth less",
            f"ciwl_final - ciwl at the peak of flip{of}",
            0.33,
            ciwl_rise,
            arms,
        ),
    )


def title_claim(name: str, arm: str) -> Claim:
    """The claim of the title: what takes over is CIWL, and not IWL."""

    def estimate(evidence: Evidence) -> Values:
        return np.minimum(evidence.scalar(arm, "ciwl_final") - CIWL_ENDS, IWL_MOST - evidence.scalar(arm, "iwl_final"))

    return Claim(
        name,
        f"{arm}: at the end there is CIWL, and no IWL",
        "Fig. 1b, 11 (CIWL .987; IWL at most .0008): a tenth less, three times as much",
        f"smaller of: ciwl_final - {CIWL_ENDS:g}, {IWL_MOST:g} - iwl_final ({arm})",
        0.0,
        estimate,
        (arm,),
    )


def share_of_turned_heads(evidence: Evidence, arm: str) -> Values:
    """Share of the heads of layer 1 whose induction strength on Flip prompts is positive at the peak of Flip and
    negative at the end."""
    strength = evidence.probe(arm, "induction_strength", "flip")
    early, late = strength.at(flip_peak_sequences(evidence, arm))[:, 1], strength.values[:, -1, 1]
    return np.where(np.isnan(early + late).any(-1), np.nan, ((early > 0) & (late < 0)).mean(-1))


def flip_change(evidence: Evidence, arm: str, half: Half) -> Values:
    """Change of every member's Flip, at the kept checkpoint nearest to its peak, when one half of the model is that of
    the last checkpoint; nan for a member that has not finished."""
    peaks, flip = flip_peak_sequences(evidence, arm), evidence.curve(arm, "flip")
    grafted: dict[Path, Series] = {}
    changes = np.full(len(peaks), np.nan)
    for m, (place, run) in enumerate(evidence.runs(arm)):
        if run is not None:
            if run.path not in grafted:
                grafted[run.path] = graft_curve(run, "flip", half)
            curve = grafted[run.path]
            near = int(np.abs(curve.sequences - peaks[m]).argmin())
            own = int(np.abs(flip.sequences - curve.sequences[near]).argmin())
            changes[m] = curve.values[place, near] - flip.values[m, own]
    return changes


def mechanism_claims(arm: str) -> tuple[Claim, ...]:
    """The claims of Fig. 3 and section 4.1 on one arm: one half of the circuit serves both strategies."""

    def shared_half(evidence: Evidence) -> Values:
        first, second = (flip_change(evidence, arm, half) for half in ("first", "second"))
        return np.minimum(TENTH - np.abs(second), -first - 0.34)

    def composition(evidence: Evidence) -> Float[np.ndarray, "member part"]:
        return evidence.probe(arm, "composition", "ciwl").values[:, -1]

    def indirect(evidence: Evidence) -> Values:
        whole, without = composition(evidence)[:, :2].T
        return np.minimum(whole - CIWL_ENDS, 0.02 - (whole - without))

    def keys_and_values(evidence: Evidence) -> Values:
        queries, keys, values = composition(evidence)[:, 2:5].T
        return queries - np.maximum(keys, values)

    return (
        Claim(
            "same heads",
            "the same heads of layer 1 turn from the context's label to the other one",
            "Fig. 3a: all eight; at least seven set beforehand",
            f"share of heads with induction strength > 0 at the flip peak, < 0 at the end ({arm})",
            0.8,
            lambda evidence: share_of_turned_heads(evidence, arm),
            (arm,),
        ),
        Claim(
            "shared half",
            "at the peak of Flip the final model's second half changes nothing, its first half all",
            "Fig. 3b (by .03 to .06), 3c: within a tenth; half of the fall set beforehand",
            f"smaller of: .1 - |change of Flip by the second half|, its fall by the first half - .34 ({arm})",
            0.0,
            shared_half,
            (arm,),
        ),
        Claim(
            "indirect",
            "CIWL is learned, and layer 0's heads act through layer 1's attention alone",
            "section 4.1 (.987 to .985); ten times that",
            f"smaller of: CIWL - {CIWL_ENDS:g}, .02 - (CIWL - CIWL without their direct effect) ({arm})",
            0.0,
            indirect,
            (arm,),
        ),
        Claim(
            "keys",
            "through its keys and values, not its queries",
            "section 4.1 (.95 against .57, .59); a tenth less",
            f"CIWL when only queries feel their absence - the larger of keys, values ({arm})",
            0.26,
            keys_and_values,
            (arm,),
        ),
    )
