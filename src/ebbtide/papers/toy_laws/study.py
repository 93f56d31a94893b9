"""Study `toy-laws`: plateaus of products and coopetition, the toy laws of two papers, and nested logits, a law of our
own, in seconds."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Float, Int
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.evaluation.summary import first_crossing
from ebbtide.mechanisms.laws import Competition, NestedLogits, Product, descend
from ebbtide.studies.claim import Claim
from ebbtide.studies.computation import Computation, Computed, Setting
from ebbtide.studies.evidence import Evidence, Scalars
from ebbtide.studies.registration import verdict_seed
from ebbtide.studies.study import Experiment, Preset, Study

PAPER = (
    "Singh et al. 2025, Strategy Coopetition, arXiv 2503.05631; Singh et al. 2024, What needs to go right for an "
    "induction head?, arXiv 2404.07129; nested logits: a law of our own"
)
MOST_NUMBERS = 2**24

PRODUCT: dict[str, tuple[int, ...]] = {"none": (), "c": (2,), "b and c": (1, 2)}
"""Arms of the product: the factors that are fixed at their final value, by name."""
COMPETITION = {"unequal": "mu1 = 0.1", "equal": "mu1 = 0"}
NESTED: dict[str, tuple[int, ...]] = {"none": (), "first": (0,), "read": (2,), "first and read": (0, 2)}
"""Arms of the nested logits: the logits that are fixed at their final value, by name."""

Steps = Annotated[int, msgspec.Meta(ge=1, le=10**6)]


class Descent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Gradient descent: its rate, the number of steps, and the steps between two records (`every`). A seed is trained
    no further once its loss is below `stop`."""

    rate: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    steps: Steps = 1000
    every: Steps = 1
    stop: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class ToyLaws(Setting, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The three laws and how each is trained. The competition is trained twice: with its mu1, and with mu1 = 0 (then
    its descent stops at `equal_stop`). The arms of the other two laws differ in what is fixed."""

    product: Product = Product()
    product_descent: Descent = Descent()
    competition: Competition = Competition()
    competition_descent: Descent = Descent(steps=16_000, every=20, stop=1e-6)
    equal_stop: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    nested: NestedLogits = NestedLogits()
    nested_descent: Descent = Descent(rate=0.05, steps=3000, every=2)

    def check(self) -> None:
        """Raises `InputError` for what cannot be computed."""
        super().check()
        self.nested.check()
        for name in ("product", "nested"):
            fixed = getattr(self, name).fixed
            require(not fixed, f"{name}.fixed", fixed, "must be empty: the arms of this study are what is given")
            descent = getattr(self, f"{name}_descent")
            require(
                descent.stop == 0, f"{name}_descent.stop", descent.stop, "must be 0: this law is trained to the end"
            )
        for name in ("product", "competition", "nested"):
            how: Descent = getattr(self, f"{name}_descent")
            every = f"{name}_descent.every"
            require(how.steps % how.every == 0, every, how.every, f"must divide the {how.steps} steps")
            allowed = f"so small that the {self.seeds} seeds give more than {MOST_NUMBERS} numbers"
            require(how.steps // how.every * self.seeds <= MOST_NUMBERS, every, how.every, allowed)


def compute(setting: ToyLaws) -> Computed:
    """Losses [seed, record] of every law and arm, in units of the law's plateau, and the steps of the records."""
    seeds = range(setting.seed, setting.seed + setting.seeds)
    curves: Computed = {}
    how = setting.product_descent
    for arm, fixed in PRODUCT.items():
        law = replace(setting.product, fixed=fixed)
        state = law.start(seeds)
        course = descend(law, state, how.rate, how.steps, how.every)
        curves["product/steps"], curves[f"product/{arm}"] = course.steps, course.losses[0] / law.level(state)[:, None]
    how = setting.competition_descent
    curves["competition/levels"] = levels = setting.competition.levels(setting.competition.start(seeds))
    for arm in COMPETITION:
        equal = arm == "equal"
        law = replace(setting.competition, mu1=0.0) if equal else setting.competition
        stop = setting.equal_stop if equal else how.stop
        course = descend(law, law.start(seeds), how.rate, how.steps, how.every, stop)
        curves["competition/steps"], curves[f"competition/{arm}/stopped"] = course.steps, course.stopped
        curves[f"competition/{arm}/L"] = course.losses[0]
        for i, name in enumerate(("L1", "L2")):
            curves[f"competition/{arm}/{name}"] = course.losses[1 + i] / levels[i][:, None]
    how = setting.nested_descent
    for arm, fixed in NESTED.items():
        law = replace(setting.nested, fixed=fixed)
        course = descend(law, law.start(seeds), how.rate, how.steps, how.every)
        curves["nested/steps"], curves[f"nested/{arm}"] = course.steps, course.losses[0] / law.level()
        for name, part in zip(("in context", "first", "match"), course.losses[1:], strict=True):
            curves[f"nested/{arm}/{name}"] = part
    return curves


Records = Float[np.ndarray, "seed record"]
Numbers = Float[np.ndarray, " seed"]


def first_below(curves: Records, level: float, steps: Int[np.ndarray, " record"]) -> Numbers:
    """First recorded step at which a curve is below a level; nan where it never is."""
    return first_crossing(steps, curves, level, falling=True, interpolate=False)


def plateau_steps(curves: Records, steps: Int[np.ndarray, " record"]) -> Numbers:
    """Number of steps during which a curve is within a tenth of its plateau (1)."""
    return (np.abs(curves - 1) < 0.1).sum(axis=1) * float(steps[1] - steps[0])


def l2_rise(l1: Records, l2: Records) -> Numbers:
    """Largest relative rise of L2 while L1 falls: from the last record with L1 at 0.9 of its plateau, before L1 is
    below half of its plateau, to the record where L1 is lowest. nan where L1 is never below half."""
    rises = np.full(len(l1), np.nan)
    for i, (one, two) in enumerate(zip(l1, l2, strict=True)):
        if (one < 0.5).any():
            high = np.flatnonzero(one[: int((one < 0.5).argmax())] >= 0.9)
            start = int(high[-1]) if len(high) else 0
            rises[i] = two[start : int(one.argmin()) + 1].max() / two[start] - 1
    return rises


def summarise(setting: ToyLaws, curves: Computed) -> Scalars:
    """Scalars that the claims are about, one number for each seed."""
    out: Scalars = {}
    for arm in PRODUCT:
        steps, loss = curves["product/steps"], curves[f"product/{arm}"]
        out[f"product, {arm} given: steps to half"] = first_below(loss, 0.5, steps)
        out[f"product, {arm} given: steps on the plateau"] = plateau_steps(loss, steps)
    for arm, words in COMPETITION.items():
        l1, l2 = curves[f"competition/{arm}/L1"], curves[f"competition/{arm}/L2"]
        left = l1.min(axis=1) < 0.5
        end2 = l2[:, -1]
        values = {
            "left": left,
            "lowest L1": l1.min(axis=1),
            "last L1": l1[:, -1],
            "bump of L2": l2_rise(l1, l2),
            "last L2": end2,
            "steps to half of L1": np.where(left, first_below(l1, 0.5, curves["competition/steps"]), np.nan),
            "stopped at": np.where((at := curves[f"competition/{arm}/stopped"]) < 0, np.nan, at),
        }
        out |= {f"{words}: {name}": value.astype(np.float64) for name, value in values.items()}
    for arm in NESTED:
        steps, loss = curves["nested/steps"], curves[f"nested/{arm}"]
        out[f"logits, {arm} given: steps to half"] = first_below(loss, 0.5, steps)
        before, after = first_below(loss, 0.75, steps), first_below(loss, 0.25, steps)
        out[f"logits, {arm} given: fall / time before"] = (after - before) / np.where(before > 0, before, np.nan)
    return out


PLATEAU = 10
"""Steps near the plateau's loss from which on there is a plateau: a hundredth of the 1,000 steps."""


def _plateau_of(arm: str) -> str:
    return f"product, {arm} given: steps on the plateau"


def _shortest_plateau(evidence: Evidence) -> np.ndarray:
    """`PLATEAU` less the steps on the plateau with b and c given; nan for a seed whose loss is never below half."""
    never = np.isnan(evidence["product, b and c given: steps to half"])
    return np.where(never, np.nan, PLATEAU - evidence[_plateau_of("b and c")])


def _where_left(words: str, estimate: Callable[[Evidence], np.ndarray]) -> Callable[[Evidence], np.ndarray]:
    """The estimate of seeds that leave the plateau, nan for the others: so most of *all* seeds must meet the claim."""
    return lambda s: np.where(s[f"{words}: left"] > 0, estimate(s), np.nan)


def _same_seeds(evidence: Evidence) -> np.ndarray:
    """1 for a seed that leaves the plateau with both mu1 or with neither, else 0; nan where no seed leaves at all."""
    left = [evidence[f"{words}: left"] > 0 for words in COMPETITION.values()]
    return np.where(np.any(left), left[0] == left[1], np.nan)


def _less_abrupt(name: str, arm: str) -> Claim:
    """The claim that three nested logits fall more abruptly than with one of them given."""
    given, none = (f"logits, {one} given: fall / time before" for one in (arm, "none"))
    return Claim(
        name,
        f"three nested logits, {arm} given: two that are learned fall less abruptly than three",
        f"{_OWN}: the deeper the nesting, the more abrupt",
        f"steps from 3/4 to 1/4 of log(labels in context) / steps before: {arm} given - none given",
        0.0,
        lambda s: s[given] - s[none],
    )


_COOP, _PRODUCT, _OWN = "2503.05631, section 6", "2404.07129, Fig. 5a", "own: the law is ours"
_UNEQUAL, _EQUAL = COMPETITION["unequal"], COMPETITION["equal"]
CLAIMS = (
    Claim(
        "plateau",
        "product of three, none given: there is a plateau",
        f"{_PRODUCT}; size: a hundredth of the 1,000 steps",
        f"steps within a tenth of the plateau's loss - {PLATEAU}",
        0.0,
        lambda s: s[_plateau_of("none")] - PLATEAU,
    ),
    Claim(
        "shorter-plateau",
        "product of three, c given: the plateau is shorter",
        _PRODUCT,
        "steps within a tenth of the plateau's loss: none given - c given",
        0.0,
        lambda s: s[_plateau_of("none")] - s[_plateau_of("c")],
    ),
    Claim(
        "no-plateau",
        "product of three, b and c given: the loss falls and no plateau is left",
        f"{_PRODUCT}; size: a hundredth of the 1,000 steps",
        f"{PLATEAU} - steps within a tenth of the plateau's loss, of seeds that fall below half of it",
        0.0,
        _shortest_plateau,
    ),
    Claim(
        "emergence",
        f"{_UNEQUAL}: mechanism 1 is learned",
        f"{_COOP}: in 10 of 12 seeds L1 collapses; size: nine tenths",
        "1 - lowest L1 / its plateau, of seeds that leave",
        0.9,
        _where_left(_UNEQUAL, lambda s: 1 - s[f"{_UNEQUAL}: lowest L1"]),
    ),
    Claim(
        "transience",
        f"{_UNEQUAL}: mechanism 1 is lost again",
        f"{_COOP}: L1 rises back; size: half its plateau",
        "(last - lowest L1) / its plateau, of seeds that leave",
        0.5,
        _where_left(_UNEQUAL, lambda s: s[f"{_UNEQUAL}: last L1"] - s[f"{_UNEQUAL}: lowest L1"]),
    ),
    Claim(
        "replacement",
        f"{_UNEQUAL}: mechanism 2 replaces it",
        f"{_COOP}: L2 decays to 0; size: nine tenths",
        "1 - last L2 / its plateau, of seeds that leave",
        0.9,
        _where_left(_UNEQUAL, lambda s: 1 - s[f"{_UNEQUAL}: last L2"]),
    ),
    Claim(
        "bump",
        f"{_UNEQUAL}: L2 rises while L1 collapses",
        f"{_COOP}: .32 to .33 in the seed shown; asked for the direction",
        "highest L2 while L1 falls from .9 of its plateau to its lowest / L2 before - 1, of seeds that leave",
        0.0,
        _where_left(_UNEQUAL, lambda s: s[f"{_UNEQUAL}: bump of L2"]),
    ),
    Claim(
        "persistence",
        f"{_EQUAL}: mechanism 1 is learned and stays",
        f"{_COOP}; size: nine tenths",
        "1 - last L1 / its plateau, of seeds that leave",
        0.9,
        _where_left(_EQUAL, lambda s: 1 - s[f"{_EQUAL}: last L1"]),
    ),
    Claim(
        "divergence",
        f"{_EQUAL}: the loss of mechanism 2 grows",
        f"{_COOP}: it diverges",
        "last L2 / its plateau - 1, of seeds that leave",
        0.0,
        _where_left(_EQUAL, lambda s: s[f"{_EQUAL}: last L2"] - 1),
    ),
    Claim(
        "same-seeds",
        "the same seeds stay on the plateau with either mu1",
        f"{_COOP}: the same 2 of 12; size: three quarters of all seeds",
        "1 where both leave it or both stay, if any seed leaves",
        0.5,
        _same_seeds,
        share=0.75,
    ),
    Claim(
        "abrupt",
        "three nested logits, none given: the loss falls abruptly",
        f"{_OWN}; size: a tenth of the time before",
        "0.1 - steps from 3/4 to 1/4 of log(labels in context) / steps before",
        0.0,
        lambda s: 0.1 - s["logits, none given: fall / time before"],
    ),
    _less_abrupt("first-less-abrupt", "first"),
    _less_abrupt("read-less-abrupt", "read"),
)


def draw_figures(setting: ToyLaws, curves: Computed) -> dict[str, bytes]:
    """figure.png and figure.svg: the losses of every law and arm."""
    from ebbtide.report.laws_figure import laws_figure

    return laws_figure(curves, PRODUCT, COMPETITION, NESTED, setting.seeds, _pick_seed(setting, curves))


def _pick_seed(setting: ToyLaws, curves: Computed) -> int:
    """Index of the seed whose single curve is drawn: the first that leaves the plateau with either mu1, else the
    first."""
    left: Any = [curves[f"competition/{arm}/L1"].min(axis=1) < 0.5 for arm in COMPETITION]
    return int(np.logical_and(*left).argmax())


QUESTION = "Do a few numbers suffice for a plateau, a sudden fall, and a skill that is learned and lost again?"
QUICK = ToyLaws(seed=verdict_seed("toy-laws", "quick", round=1), seeds=40)
TOY_LAWS = Study(
    name="toy-laws",
    paper=PAPER,
    question=QUESTION,
    experiments=(
        Experiment(
            name="toy-laws",
            question=QUESTION,
            section="the toy models of two papers, and a law of our own",
            claims=CLAIMS,
            presets={
                "quick": Preset(
                    Computation(QUICK, compute, summarise, draw_figures),
                    1 / 6,
                    "products and competition at the papers' sizes, other seeds; the nested logits "
                    "are a law of our own",
                )
            },
        ),
    ),
)
