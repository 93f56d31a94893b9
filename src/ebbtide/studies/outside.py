"""Studies outside of this package: in a file that a user names, or in another package that is installed."""

from importlib.metadata import entry_points

from ebbtide.errors import nearest, require
from ebbtide.studies.study import Study
from ebbtide.user_code import load, split_words

GROUP = "ebbtide.studies"
"""The group of entry points by which an installed package adds its studies: `my-study = "my_package.module:STUDY"`."""


def study_in_file(words: str) -> Study:
    """The study in a Python file, which is imported: to be called with a file that the user names, never with one that
    a run's folder names.

    `words` are the file's path, and after a colon the variable that holds the study, where the file has several. Raises
    `InputError` in one line where there is no such file or study, and where the file cannot be imported.
    """
    file, (_, name) = load(words, "study"), split_words(words)
    studies = {key: value for key, value in vars(file.module).items() if isinstance(value, Study)}
    known = ", ".join(studies) or "none"
    if name:
        require(name in studies, "study", words, f"has the studies {known}{nearest(name, studies)}")
    require(bool(name) or len(studies) == 1, "study", words, f"must hold one study, or be FILE.py:NAME; it has {known}")
    study = studies[name] if name else next(iter(studies.values()))
    require(len(study.experiments) > 0, "study", words, f"{study.name} has no experiments")
    folder = study.registrations or str(file.path.with_suffix(".registered"))
    return study._replace(file=f"{file.path.name} {file.sha256[:16]}", registrations=folder)


def installed_studies() -> dict[str, Study]:
    """The studies that installed packages add, by name. Raises `InputError` for an entry point that leads to no
    study."""
    found = {}
    for entry in entry_points(group=GROUP):
        study = entry.load()
        require(isinstance(study, Study), "study", entry.name, f"the entry point {entry.value} is no study")
        found[study.name] = study
    return found
