"""Studies outside of this package: in a file that a user names, or in another package that is installed."""

import hashlib
import importlib.util
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path

from ebbtide.errors import InputError, nearest, one_line, require
from ebbtide.studies.study import Study

GROUP = "ebbtide.studies"
"""The group of entry points by which an installed package adds its studies: `my-study = "my_package.module:STUDY"`."""


def names_a_file(words: str) -> bool:
    """Whether words name a study by its file: `./mine.py`, or `./mine.py:STUDY` where it holds several."""
    return words.partition(".py")[1] == ".py" and words.partition(".py")[2][:1] in ("", ":")


def study_in_file(words: str) -> Study:
    """The study in a Python file, which is imported: to be called with a file that the user names, never with one that
    a run's folder names.

    `words` are the file's path, and after a colon the variable that holds the study, where the file has several. Raises
    `InputError` in one line where there is no such file or study, and where the file cannot be imported.
    """
    head, _, name = words.partition(".py")
    path, name = Path(f"{head}.py"), name.removeprefix(":")
    require(path.is_file(), "study", words, "no such file")
    module = _imported(path, words)
    studies = {key: value for key, value in vars(module).items() if isinstance(value, Study)}
    known = ", ".join(studies) or "none"
    if name:
        require(name in studies, "study", words, f"has the studies {known}{nearest(name, studies)}")
    require(bool(name) or len(studies) == 1, "study", words, f"must hold one study, or be FILE.py:NAME; it has {known}")
    study = studies[name] if name else next(iter(studies.values()))
    require(len(study.experiments) > 0, "study", words, f"{study.name} has no experiments")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return study._replace(file=f"{path.name} {digest[:16]}")


def _imported(path: Path, words: str) -> object:
    """The module of a file, which may import its neighbours. The file's own errors are told in one line."""
    spec = importlib.util.spec_from_file_location(f"ebbtide_study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError("study", words, "is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:  # whatever the user's file raises is the file's fault, and told with its line
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        at = f"line {line}: " if line else ""
        raise InputError("study", words, one_line(f"{at}{type(error).__name__}: {error}")) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def installed_studies() -> dict[str, Study]:
    """The studies that installed packages add, by name. Raises `InputError` for an entry point that leads to no
    study."""
    found = {}
    for entry in entry_points(group=GROUP):
        study = entry.load()
        require(isinstance(study, Study), "study", entry.name, f"the entry point {entry.value} is no study")
        found[study.name] = study
    return found
