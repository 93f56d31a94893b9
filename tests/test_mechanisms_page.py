"""The code of docs/mechanisms.md runs, and shows what the page says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs/mechanisms.md"

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.thorough
def test_the_page_runs_and_its_words_are_true(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    printed = re.findall(r"^0\.\d+$|^1\.0$", capsys.readouterr().out, re.MULTILINE)
    whole, without, kept = (float(x) for x in printed[-3:])
    assert whole > 0.9 and without < 0.6 and kept > 0.9
    strength = np.asarray(
        names["eb"].measure("induction_strength", names["spec"].model, names["params"], names["prompt"])
    )
    assert strength[1].max() > 0.5
    plain = names["run"].metrics()["train_loss"]
    assert (names["curves"]["train_loss"][:, -1] < plain[:, 1]).all()


def test_every_intervention_is_in_the_table():
    from ebbtide.mechanisms.interventions import AnyIntervention

    rows = re.findall(r"^\| `(\w+)\((.*?)\)`", PAGE.read_text(), re.MULTILINE)
    fields = {one.__name__: ", ".join(one.__struct_fields__) for one in AnyIntervention.__args__}
    assert dict(rows) == fields
