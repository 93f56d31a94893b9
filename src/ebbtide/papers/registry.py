"""All studies: the list of those of this package, and those that installed packages add."""

from typing import NamedTuple

from ebbtide.errors import nearest, require
from ebbtide.papers.abrupt_learning.study import ABRUPT_LEARNING
from ebbtide.papers.affine_recurrence.study import AFFINE_RECURRENCE
from ebbtide.papers.bayesian_averaging.study import BAYESIAN_AVERAGING
from ebbtide.papers.bounded_cfg.study import BOUNDED_CFG
from ebbtide.papers.chains.study import CHAINS
from ebbtide.papers.context_to_weights.study import CONTEXT_TO_WEIGHTS
from ebbtide.papers.coopetition.study import COOPETITION
from ebbtide.papers.forecast.study import FORECAST
from ebbtide.papers.gmm_convergence.study import GMM_CONVERGENCE
from ebbtide.papers.induction_heads.study import INDUCTION_HEADS
from ebbtide.papers.keeping_icl.study import KEEPING_ICL
from ebbtide.papers.kinetics.study import KINETICS
from ebbtide.papers.nonlinear_generalisation.study import NONLINEAR_GENERALISATION
from ebbtide.papers.positions.study import POSITIONS
from ebbtide.papers.regularisation.study import REGULARISATION
from ebbtide.papers.representations.study import REPRESENTATIONS
from ebbtide.papers.statisticians.study import STATISTICIANS
from ebbtide.papers.toy_laws.study import TOY_LAWS
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.papers.transient_ridge.study import TRANSIENT_RIDGE
from ebbtide.papers.urns.study import URNS
from ebbtide.studies.outside import installed_studies, study_in_file
from ebbtide.studies.study import Study
from ebbtide.training.spec import Spec
from ebbtide.user_code import names_a_file

STUDIES: tuple[Study, ...] = (
    TRANSIENCE,
    REGULARISATION,
    FORECAST,
    KINETICS,
    KEEPING_ICL,
    INDUCTION_HEADS,
    COOPETITION,
    ABRUPT_LEARNING,
    POSITIONS,
    TRANSIENT_RIDGE,
    REPRESENTATIONS,
    STATISTICIANS,
    BAYESIAN_AVERAGING,
    GMM_CONVERGENCE,
    NONLINEAR_GENERALISATION,
    CONTEXT_TO_WEIGHTS,
    AFFINE_RECURRENCE,
    CHAINS,
    URNS,
    BOUNDED_CFG,
    TOY_LAWS,
)


class StudyEntry(NamedTuple):
    """A row of the list of studies: the name on the command line, the paper, and the question in one sentence."""

    name: str
    paper: str
    question: str


def all_studies() -> dict[str, Study]:
    """All studies by name: those of this package, then those that installed packages add under other names. Raises
    `InputError` when an installed package adds something that is no study."""
    own = {study.name: study for study in STUDIES}
    return own | {name: study for name, study in installed_studies().items() if name not in own}


def list_studies() -> list[StudyEntry]:
    """Names, papers and questions of all studies: those of this package, then those that installed packages add.
    `find_study` gives the study of a name.

    Raises:
        InputError: an installed package adds something that is no study.

    >>> for study in eb.list_studies()[:2]:
    ...     print(f"{study.name}: {study.question}")
    transience: ...
    regularisation: ...
    """
    return [StudyEntry(one.name, one.paper, one.question) for one in all_studies().values()]


def find_study(name: str) -> Study:
    """The study of a name: one of this package, or one that an installed package adds (entry points in the group
    `ebbtide.studies`). No file is imported, whatever the name is: it may come from a folder.

    Args:
        name: the study's name, one of `list_studies()`.

    Raises:
        InputError: there is no such study.

    >>> eb.find_study("transience").question
    'Does in-context learning fade after it has emerged, while the loss keeps falling?'
    """
    known = {study.name: study for study in STUDIES}
    if name not in known:
        known = all_studies()
    require(name in known, "study", name, f"must be one of {', '.join(known)}{nearest(name, known)}")
    return known[name]


def resolve_study(words: str) -> Study:
    """The study that a user names on the command line: by its name, or by a Python file (`./mine.py`), which is
    imported. Raises `InputError` for an unknown one."""
    return study_in_file(words) if names_a_file(words) else find_study(words)


def preset_of(study: str, preset: str) -> Spec:
    """The spec of a study's preset. Raises `InputError` for an unknown one, and for a study that trains nothing."""
    return find_study(study).base(preset).spec
