"""Study `kinetics`: do the speeds of two sub-circuits say when in-context learning comes and goes?"""

from ebbtide.papers.kinetics.decay import DECAY
from ebbtide.papers.kinetics.fall import FALL
from ebbtide.papers.kinetics.settings import PAPER, QUICK, SCALED
from ebbtide.studies.study import Base, Study

KINETICS = Study(
    name="kinetics",
    paper=PAPER,
    question="Do the speeds of memorising and of learning in context say when ICL comes and goes?",
    bases={"quick": Base(QUICK, SCALED)},
    experiments=(DECAY, FALL),
)
