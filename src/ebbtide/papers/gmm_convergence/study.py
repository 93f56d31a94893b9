"""Study `gmm-convergence`: does attention learn to classify Gaussian mixtures in context, at a linear rate?"""

from msgspec.structs import replace

from ebbtide.models.positions import NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.papers.gmm_convergence import attention, descent
from ebbtide.papers.gmm_convergence.figure import draw_descents
from ebbtide.sources.mixtures import Mixtures
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.computation import Computation
from ebbtide.studies.registration import verdict_seed
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.tasks.classification import Classification
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Shen, Zhou, Yang & Shen 2024, On the Training Convergence of Transformers for In-Context Classification of "
    "Gaussian Mixtures, arXiv 2410.11778"
)
NAME = "gmm-convergence"
QUICK = Spec(
    task=Classification(context=40),
    source=Mixtures(dim=4),
    model=Transformer(
        layers=3, width=32, heads=4, mlp_ratio=2, positions=NoPositions(), pairing="joint", mask="none", norm="pre"
    ),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=200)),
    batch=64,
    sequences=192_000,
    schedule=Schedule(evaluations=31, spacing="log", first=640, checkpoints=2),
    evaluators=("train", "norms", "covariance"),
    evaluation_sequences=1000,
    keep_best=None,
)
PAPER_SIZE = replace(
    QUICK,
    task=Classification(context=100),
    model=replace(QUICK.model, width=256, heads=8, mlp_ratio=4),
    optimizer=Adam(lr=1e-4, schedule=Cosine(warmup=1000)),
    sequences=6_400_000,
)

DESCENT = Experiment(
    name="descent",
    question="Does gradient descent on the population loss converge at a linear rate, to what the paper says?",
    section="Theorems: one matrix, two and more classes",
    claims=descent.CLAIMS,
    presets={
        "quick": Preset(
            Computation(
                descent.Descents(seed=verdict_seed(f"{NAME}/descent", "quick", round=1), seeds=12),
                descent.compute,
                descent.summarise,
                draw_descents,
            ),
            None,
            "4 dimensions, 100 pairs; the population is a pool of 4,000 prompts, each with its label's probabilities",
        )
    },
)
SCALED = (
    "dimensions, covariance, rates and lengths of training are ours; transformers read a pair as one token, without "
    "mask or positions, where the paper's GPT-2 is causal"
)
ATTENTION = Experiment(
    name="attention",
    question="Do the one matrix and transformers, trained on fresh prompts, come near to Bayes?",
    section="Experiments",
    claims=attention.CLAIMS,
    presets={
        "quick": Preset(
            Comparison(arms=attention.ARMS, base={}, round=1),
            12,
            f"40 pairs for 100, 3 layers of width 32; {SCALED}",
        ),
        "cpu": Preset(
            Comparison(arms=attention.ARMS, base={"task.context": 100}, round=1),
            None,
            f"100 pairs, 3 layers of width 32; {SCALED}",
        ),
        "paper": Preset(
            Comparison(arms=attention.ARMS, base={}, preset="paper", round=1),
            None,
            f"100 pairs, 3 layers of width 256 with 8 heads (from memory); {SCALED}",
        ),
    },
    shows=("train", "norms", "covariance"),
    scalars=("train_peak", "train_final", "norms_final", "covariance_peak", "covariance_final", "train_loss_final"),
    figures=attention.draw_lengths,
)
GMM_CONVERGENCE = Study(
    name=NAME,
    paper=PAPER,
    question="Does attention learn to classify Gaussian mixtures in context at a linear rate, as well as Bayes?",
    bases={
        "quick": Base(QUICK, "4 dimensions, 40 pairs, 3 layers of width 32"),
        "paper": Base(PAPER_SIZE, "4 dimensions, 100 pairs, 3 layers of width 256"),
    },
    experiments=(DESCENT, ATTENTION),
)
