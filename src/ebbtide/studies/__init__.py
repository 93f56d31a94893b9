"""All studies, one file each."""

from ebbtide.errors import InputError, nearest
from ebbtide.studies.coopetition import COOPETITION
from ebbtide.studies.induction_heads import INDUCTION_HEADS
from ebbtide.studies.regularisation import REGULARISATION
from ebbtide.studies.study import Study
from ebbtide.studies.transience import TRANSIENCE

STUDIES: tuple[Study, ...] = (TRANSIENCE, REGULARISATION, INDUCTION_HEADS, COOPETITION)


def find_study(name: str) -> Study:
    """The study of that name. Raises `InputError` for an unknown one."""
    names = [study.name for study in STUDIES]
    if name not in names:
        raise InputError("study", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
    return STUDIES[names.index(name)]
