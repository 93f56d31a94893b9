"""Study `urns`: when does a model of a pool of urns turn from generalising to memorising?"""

from msgspec.structs import replace

from ebbtide.models.transformer import Transformer
from ebbtide.papers.urns.pools import POOLS_EXPERIMENT
from ebbtide.sources.urns import Urns
from ebbtide.studies.study import Base, Study
from ebbtide.tasks.markov import Markov
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Wurgaft, Lubana, Park, Tanaka, Reddy & Goodman 2025, In-Context Learning Strategies Emerge Rationally, arXiv "
    "2506.17859"
)
QUICK = Spec(
    task=Markov(context=15),
    source=Urns(states=8, pool=48),
    model=Transformer(layers=1, width=32, heads=1, mlp_ratio=4, pairing="states"),
    optimizer=Adam(lr=2e-3, schedule=Constant(warmup=100)),
    batch=16,
    sequences=128_000,
    schedule=Schedule(evaluations=17, spacing="log", first=800, checkpoints=17),
    evaluators=("train", "prior"),
    evaluation_sequences=500,
    keep_best=None,
)
PAPER_SIZE = replace(
    QUICK,
    task=Markov(context=127),
    model=Transformer(layers=1, width=64, heads=1, mlp_ratio=4, pairing="states"),
    optimizer=Adam(lr=5e-4, schedule=Constant(warmup=5000)),
    batch=64,
    sequences=6_400_000,
    schedule=Schedule(evaluations=41, spacing="log", first=1280, checkpoints=41),
)

URNS = Study(
    name="urns",
    paper=PAPER,
    question="When does a model of a pool of urns turn from generalising to memorising?",
    bases={
        "quick": Base(QUICK, "8 colours, 16 draws, width 32"),
        "paper": Base(PAPER_SIZE, "8 colours, 128 draws, width 64"),
    },
    experiments=(POOLS_EXPERIMENT,),
)
