"""What people type: names of other libraries are answered with ours, numbers are read as they are written."""

import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.training.common_names import ELSEWHERE, FIELDS, field_called, number_in
from ebbtide.training.fields import override
from ebbtide.training.spec import Spec, from_builtins
from tiny import SPEC


def overridden(name: str, text: str) -> Spec:
    data = SPEC.builtins()
    override(Spec, data, name, text)
    return from_builtins(data)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2.56M", 2_560_000),
        ("1_280_000", 1_280_000),
        ("1,280,000", 1_280_000),
        ("64k", 64_000),
        ("64K", 64_000),
        ("1.6B", 1_600_000_000),
        ("0.0005k", 0.5),
        ("1e6", None),  # JSON reads it
        ("12_80", None),
        ("1_000,000", None),
        ("1.28.0M", None),
        ("12L", None),
        ("M", None),
        ("-3k", None),
    ],
)
def test_numbers_as_people_write_them(text, number):
    assert number_in(text) == number


@pytest.mark.parametrize("text", ["1.024k", "1_024", "1,024", "1024", "1.024e3"])
def test_a_whole_number_may_be_written_in_any_of_these_ways(text):
    assert overridden("sequences", text).sequences == 1024


def test_a_part_of_a_sequence_is_refused(one_line):
    with pytest.raises(InputError) as caught:
        overridden("sequences", "0.0005k")
    one_line(caught, "sequences", 0.5)


def test_a_word_that_looks_like_a_number_stays_a_word_where_a_word_is_asked_for(one_line):
    with pytest.raises(InputError, match="expected") as caught:
        overridden("keep_best", "5M")
    one_line(caught, "keep_best", 5_000_000)


@pytest.mark.parametrize("name", ["lr", "learning_rate", "learning-rate", "LR"])
def test_a_name_of_another_library_is_answered_with_ours(name, one_line):
    with pytest.raises(InputError, match=r"no such field; here it is optimizer\.lr; a spec has") as caught:
        overridden(name, "1e-3")
    one_line(caught, name, 1e-3)


def test_every_name_leads_to_a_field_and_is_none_itself():
    data = SPEC.builtins() | {"stopping": {"patience": 1}}
    fields = {*data, *(f"{part}.{name}" for part in data if isinstance(data[part], dict) for name in data[part])}
    assert set(ELSEWHERE) <= fields
    assert not set(FIELDS) & set(data)
    assert len(FIELDS) == sum(len(names) for names in ELSEWHERE.values())  # none leads to two
    assert field_called("no_name_of_anything") == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epochs", "3"], "epochs = 3: no such field; here it is sequences (sequences per member; a step is"),
        (["--seed", "3"], "seed = 3: no such field; here it is seeds (seeds.init, seeds.data and"),
        (["--batch-size", "3"], "batch-size = 3: no such field; here it is batch; a spec has"),
        (["--proceses", "3"], "--proceses: no such option or field; did you mean --processes?"),
    ],
)
def test_the_command_line_answers_in_one_line(words, told, capsys):
    assert main(["run", "transience", *words, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ebbtide: {told}") and error.count("\n") == 1
