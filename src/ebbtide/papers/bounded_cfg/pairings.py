"""Experiment `pairings` of `bounded-cfg`: which bracket closes which is drawn anew for every word, or from a pool."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from msgspec import to_builtins
from scipy.special import log_softmax

from ebbtide.analysis import predictions
from ebbtide.analysis.predictions import PROMPTS, Predictions, cache_per_prompt_set, map_members
from ebbtide.evaluation.pools import pool_weights
from ebbtide.evaluation.words import next_symbol_probs
from ebbtide.models.positions import NoPositions
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.papers.bounded_cfg.figures import draw_pairings
from ebbtide.papers.bounded_cfg.measures import HELD_OUT, divergence, words_of
from ebbtide.runs.folder import Snapshot
from ebbtide.sources.words import every_pairing
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.parsing import Parsing

Probs = Float[np.ndarray, "slots prompt symbols"]
Values = Float[np.ndarray, " member"]

NEAR = 0.02
"""KL(exact || model), nats a symbol, below which a model counts as at the exact prediction: as in `chains`."""
FAR = 0.1
"""KL from which on a model counts as far from it: five times as much."""
PRIOR = "prior"
"""Evaluator whose words are held out and have pairings drawn anew."""
POOL = 2
OWN, POOLED, OWN_LSTM = "every word its own", f"{POOL} pairings", "LSTM, every word its own"
TRANSFORMER = Transformer(layers=2, width=32, heads=4, pairing="states")
LSTM = Recurrent(layers=1, width=64, positions=NoPositions(), pairing="states")
"""About as many parameters."""
ARMS: dict[str, Point] = {
    OWN: {"model": to_builtins(TRANSFORMER), "source.pool": 0},
    POOLED: {"model": to_builtins(TRANSFORMER), "source.pool": POOL},
    OWN_LSTM: {"model": to_builtins(LSTM), "source.pool": 0},
}


@cache_per_prompt_set
def inference_probs(asked: Predictions) -> Probs:
    """Exact probabilities of the next symbol where all pairings are equally likely: learned in context."""
    source = words_of(asked)
    return next_symbol_probs(asked.inputs.argmax(-1), source, every_pairing(source.types))


@cache_per_prompt_set
def retrieval_probs(asked: Predictions) -> Probs:
    """The same where the pairings of the pool are, and no others are possible: known from training."""
    source = words_of(asked)
    pool = np.asarray(source.build().pairings)
    assert isinstance(asked.spec.task, Parsing)
    weights = pool_weights(len(pool), asked.spec.task.zipf)
    return next_symbol_probs(asked.inputs.argmax(-1), source, pool, weights)


def distance(asked: Predictions, exact: Probs) -> float:
    """KL(exact || model) at the last checkpoint, nats a symbol."""
    return divergence(asked, exact, log_softmax(asked.outputs[-1], axis=-1))


@lru_cache(maxsize=1024)
def _from_inference(run: Snapshot, place: int) -> float:
    asked = predictions.predict_member(run, place, PRIOR, PROMPTS, True)
    return distance(asked, inference_probs(asked))


@lru_cache(maxsize=1024)
def _from_retrieval(run: Snapshot, place: int) -> float:
    asked = predictions.predict_member(run, place, HELD_OUT, PROMPTS, True)
    return distance(asked, retrieval_probs(asked))


def from_inference(evidence: Evidence, arm: str) -> Values:
    """KL(`inference_probs` || model) on held-out words with pairings drawn anew, nats a symbol."""
    return np.asarray([np.nan if one is None else one for one in map_members(evidence, arm, _from_inference)])


def from_retrieval(evidence: Evidence, arm: str) -> Values:
    """KL(`retrieval_probs` || model) on held-out words with pairings of the pool, nats a symbol."""
    return np.asarray([np.nan if one is None else one for one in map_members(evidence, arm, _from_retrieval)])


def behind_margin(evidence: Evidence) -> Values:
    """Smaller of: by how much farther the LSTM is from the posterior over all pairings than the transformer - .1, .02 -
    the transformer's distance; nats a symbol."""
    near = from_inference(evidence, OWN)
    return np.minimum(from_inference(evidence, OWN_LSTM) - near - FAR, NEAR - near)


CLAIMS = (
    Claim(
        "infers",
        "where every word has a pairing of its own, the transformer predicts as by the exact posterior over all",
        "own: in-context variant; .02: as in chains",
        f"{NEAR:g} - KL(posterior over all pairings || model), words with new pairings ({OWN})",
        0.0,
        lambda evidence: NEAR - from_inference(evidence, OWN),
        (OWN,),
    ),
    Claim(
        "retrieves",
        f"where words have one of {POOL} pairings, it predicts as by the exact posterior over these",
        "the same",
        f"{NEAR:g} - KL(posterior over the pool || model), words with pairings of the pool ({POOLED})",
        0.0,
        lambda evidence: NEAR - from_retrieval(evidence, POOLED),
        (POOLED,),
    ),
    Claim(
        "retrieves only",
        "and is then far from the posterior over all pairings where these are drawn anew",
        "own: knowledge in weights; .1: five times .02",
        f"smaller of: KL(posterior over all pairings || model), words with new pairings - {FAR:g}, {NEAR:g} - "
        f"KL(posterior over the pool || model) ({POOLED})",
        0.0,
        lambda evidence: np.minimum(from_inference(evidence, POOLED) - FAR, NEAR - from_retrieval(evidence, POOLED)),
        (POOLED,),
    ),
    Claim(
        "LSTM",
        "an LSTM with as many parameters does not come to learn the pairing in context in the same training",
        "own, after one tuning run",
        f"smaller of: distance of {OWN_LSTM} from the posterior over all pairings - of {OWN} - {FAR:g}, {NEAR:g} - "
        f"distance of {OWN}",
        0.0,
        behind_margin,
        (OWN, OWN_LSTM),
    ),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """pairings.png: valid next symbols over training, with pairings as in training and drawn anew."""
    done = [arm for arm in ARMS if arm in evidence.finished_arms()]
    panels = {
        arm: {
            label: (evidence.curve(arm, name).sequences, evidence.curve(arm, name).values)
            for label, name in (("pairings as in training", HELD_OUT), ("drawn anew", PRIOR))
        }
        for arm in done
    }
    return {"pairings.png": draw_pairings(title, panels)} if done else {}


BASE: Point = {
    "task.target": "symbol",
    "source.types": 3,
    "source.depth": 3,
    "model": to_builtins(TRANSFORMER),
    "evaluators": ["train", HELD_OUT, PRIOR],
    "batch": 32,
    "sequences": 160_000,
}
SCALED = "own: no experiment of the paper; 3 types, depth 3, words of at most 24 letters"
PAIRINGS = Experiment(
    name="pairings",
    question="Is the pairing of brackets learned in context where it is new in every word, and known where it is not?",
    section="none: an in-context variant of the paper's languages",
    claims=CLAIMS,
    presets={"quick": Preset(Comparison(arms=ARMS, base=BASE, round=1), 4, SCALED)},
    shows=(HELD_OUT, PRIOR),
    scalars=("held_out_final", "prior_final", "train_loss_final"),
    figures=_draw,
)
