"""Study `bounded-cfg`: do recurrent networks fail to keep a stack where transformers do not?"""

from ebbtide.papers.bounded_cfg.decomposition import DECOMPOSITION
from ebbtide.papers.bounded_cfg.pairings import PAIRINGS
from ebbtide.papers.bounded_cfg.settings import PAPER, QUICK
from ebbtide.papers.bounded_cfg.shift import SHIFT
from ebbtide.studies.study import Base, Study

BOUNDED_CFG = Study(
    name="bounded-cfg",
    paper=PAPER,
    question="Does an LSTM fail to keep a bounded stack where a transformer does not?",
    bases={"quick": Base(QUICK, "2 types of brackets, at most 4 deep, words of at most 24 letters, width 40")},
    experiments=(DECOMPOSITION, SHIFT, PAIRINGS),
)
