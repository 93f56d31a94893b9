"""The public names: one list, that every reader of it understands, with types that a user's checker sees."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import ebbtide
from ebbtide.training.kinds import AnyModel

PACKAGE = Path(ebbtide.__file__).parent
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text())


def test_the_list_of_public_names_says_the_same_to_python_and_to_type_checkers():
    """A type checker parses the whole file, the package reads its lines."""
    lines = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
    assert all(len(node.names) == 1 and node.names[0].name == node.names[0].asname for node in lines)
    assert [node.names[0].name for node in lines] == ebbtide.__all__
    assert len(set(ebbtide.__all__)) == len(ebbtide.__all__) >= 80
    rest = [ast.unparse(node) for node in STUB.body if not isinstance(node, ast.ImportFrom)]
    assert rest[1:] == ["__all__: list[str]", "__version__: str"], "nothing else is there but the docstring"


def test_every_public_name_is_listed_with_the_module_that_defines_it():
    for node in STUB.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            name = node.names[0].name
            found = getattr(ebbtide, name)
            assert found is getattr(importlib.import_module(node.module), name)
            assert getattr(found, "__module__", node.module) == node.module


def test_no_public_name_is_hidden_by_a_module_of_the_package():
    """`import ebbtide.studies` makes `ebbtide.studies` that package, whatever it was before."""
    inside = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert inside & set(ebbtide.__all__) == set()


USER = """
import ebbtide as eb

run = eb.Run("runs/first")
reveal_type(run)
reveal_type(run.spec)
reveal_type(run.spec.model)
reveal_type(run.model(1, at="best")[0])
reveal_type(eb.train(run.spec, out="runs/second"))
reveal_type(eb.load("runs/sweep"))
reveal_type(eb.Prompt)
reveal_type(eb.FunctionPrompt)
reveal_type(eb.Claim)
reveal_type(eb.__version__)
run.model(at="newest")
eb.Transformer(layer=2)
eb.Transformers
"""


def test_a_type_checker_sees_the_types_in_a_file_outside_the_package(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    told = json.loads(done.stdout)["generalDiagnostics"]
    types = [one["message"].rpartition(' is "')[2].rstrip('"') for one in told if one["severity"] == "information"]
    assert types == [
        "Run",
        "Spec",
        " | ".join(one.__name__ for one in get_args(AnyModel)),
        "Model",
        "Run",
        "Results",
        "type[Prompt]",
        "type[FunctionPrompt]",
        "type[Claim]",
        "str",
    ]
    lines = USER.splitlines()
    wrong = [lines[one["range"]["start"]["line"]] for one in told if one["severity"] == "error"]
    assert list(dict.fromkeys(wrong)) == ['run.model(at="newest")', "eb.Transformer(layer=2)", "eb.Transformers"]


def test_the_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").read_bytes() == b""


@pytest.mark.parametrize("name", ["Run", "Claim", "Prompt", "FunctionPrompt", "Results"])
def test_what_a_user_looks_for_is_there(name):
    assert name in ebbtide.__all__ and name in dir(ebbtide)
