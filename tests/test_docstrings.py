"""The examples in the docstrings of public names are run, in an empty folder; later ones use the run of `train`'s."""

import doctest
from typing import Any

import jax
import numpy as np
import pytest

import ebbtide as eb

pytestmark = pytest.mark.usefixtures("quick_compile")
FINDER = doctest.DocTestFinder()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(name: str, names: dict[str, Any]) -> list[doctest.DocTest]:
    """The examples in the docstring of a public name, and for a class of its methods."""
    return [one for one in FINDER.find(getattr(eb, name), name, globs=dict(names)) if one.examples]


def test_the_examples_of_public_names_give_what_they_show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"eb": eb, "np": np, "jax": jax, "InputError": eb.InputError}
    runner, shown = doctest.DocTestRunner(optionflags=FLAGS), []
    for name in ("train", *(one for one in sorted(eb.__all__) if one != "train")):
        for one in examples(name, names):
            runner.run(one, out=shown.append)
    assert runner.tries > 20 and not runner.failures, "".join(shown)


def test_a_wrong_example_would_have_been_noticed():
    def wrong() -> None:
        """Two.

        >>> 1 + 2
        2
        """

    (one,) = FINDER.find(wrong, "wrong", globs={})
    runner = doctest.DocTestRunner()
    runner.run(one, out=lambda text: None)
    assert runner.failures == 1


@pytest.mark.parametrize("name", ["Run", "train", "resume", "model_at", "score", "probe_run"])
def test_functions_that_take_a_run_have_an_example(name):
    assert examples(name, {})
