"""Study `chains`: which algorithms does a model of Markov chains go through, and which of them last?"""

from ebbtide.models.transformer import Transformer
from ebbtide.papers.chains.boundaries import BOUNDARIES
from ebbtide.papers.chains.phases import PHASES
from ebbtide.papers.chains.pools import POOLS_EXPERIMENT
from ebbtide.sources.chains import Chains
from ebbtide.studies.study import Base, Study
from ebbtide.tasks.markov import Markov
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Edelman et al. 2024, The Evolution of Statistical Induction Heads, arXiv 2402.11004; Park, Lubana, Pres & Tanaka "
    "2025, Competition Dynamics Shape Algorithmic Phases of In-Context Learning, arXiv 2412.01003; Gibson, Cui & Reddy "
    "2026, Distinct mechanisms underlying in-context learning in transformers, arXiv 2604.12151"
)
QUICK = Spec(
    task=Markov(context=31),
    source=Chains(states=5, pool=32),
    model=Transformer(layers=2, width=32, heads=2, mlp_ratio=4, pairing="states"),
    optimizer=Adam(lr=3e-3, schedule=Constant(warmup=100)),
    batch=32,
    sequences=768_000,
    schedule=Schedule(evaluations=17, spacing="log", first=1600, checkpoints=17),
    evaluators=("train", "prior"),
    evaluation_sequences=500,
    keep_best=None,
)

CHAINS = Study(
    name="chains",
    paper=PAPER,
    question="Which algorithms does a model of Markov chains go through, and which of them last?",
    bases={"quick": Base(QUICK, "5 states, streams of 32 symbols, 2 layers of width 32")},
    experiments=(PHASES, POOLS_EXPERIMENT, BOUNDARIES),
)
