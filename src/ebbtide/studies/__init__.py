"""All studies, one file each."""

from ebbtide.errors import InputError, nearest
from ebbtide.studies.abrupt_learning import ABRUPT_LEARNING
from ebbtide.studies.bayesian_averaging import BAYESIAN_AVERAGING
from ebbtide.studies.computed import Computed
from ebbtide.studies.coopetition import COOPETITION
from ebbtide.studies.induction_heads import INDUCTION_HEADS
from ebbtide.studies.positions import POSITIONS
from ebbtide.studies.regularisation import REGULARISATION
from ebbtide.studies.representations import REPRESENTATIONS
from ebbtide.studies.statisticians import STATISTICIANS
from ebbtide.studies.study import Study
from ebbtide.studies.toy_laws import TOY_LAWS
from ebbtide.studies.transience import TRANSIENCE
from ebbtide.studies.transient_ridge import TRANSIENT_RIDGE

STUDIES: tuple[Study, ...] = (
    TRANSIENCE,
    REGULARISATION,
    INDUCTION_HEADS,
    COOPETITION,
    ABRUPT_LEARNING,
    POSITIONS,
    TRANSIENT_RIDGE,
    REPRESENTATIONS,
    STATISTICIANS,
    BAYESIAN_AVERAGING,
)
COMPUTED: tuple[Computed, ...] = (TOY_LAWS,)
"""Studies that need no training."""


def find_study(name: str) -> Study:
    """The study of that name. Raises `InputError` for an unknown one, and for one that trains nothing."""
    study = find_any(name)
    if isinstance(study, Computed):
        raise InputError("study", name, f"trains nothing, so it has no spec; run it with: ebbtide run {name}")
    return study


def find_any(name: str) -> Study | Computed:
    """The study of that name, be it trained or computed. Raises `InputError` for an unknown one."""
    every = {study.name: study for study in (*STUDIES, *COMPUTED)}
    if name not in every:
        raise InputError("study", name, f"must be one of {', '.join(every)}{nearest(name, every)}")
    return every[name]
