"""Registrations of claims, seeds and settings before a verdict run, and the seeds of such runs."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.papers.registry import STUDIES
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison, SweepPlan, seeds_of_round
from ebbtide.studies.registration import (
    SEED_BLOCK,
    read_registration,
    register,
    verdict_seed,
    write_registration,
)
from ebbtide.studies.single_run import conclude_run
from ebbtide.studies.study import setup
from tiny import write_run

ONE = Claim("one", "it rises", "Fig. 1", "peak", 0.5, lambda evidence: np.ones(2))
TWO = Claim("two", "it falls", "Fig. 1", "fall", 0.1, lambda evidence: np.ones(2), ("arm",), 0.8)


def test_what_was_registered_is_compared_with_what_is_judged(tmp_path):
    write_registration(tmp_path, register("study/one", "quick", "0" * 64, "seeds 1", [ONE, TWO]))
    found = read_registration(tmp_path, "study/one", "quick")
    assert found is not None
    first, _ = found
    day = first.created[:10]
    cases = [
        (("0" * 64, "seeds 1", [TWO, ONE]), f"as registered on {day}"),
        (("1" * 64, "seeds 1", [ONE, TWO]), "setting"),
        (("1" * 64, "seeds 2", [ONE, TWO]), "seeds"),
        (("0" * 64, "seeds 1", [ONE]), "claim 'two' dropped"),
        (("0" * 64, "seeds 1", [ONE, TWO, ONE._replace(name="three")]), "claim 'three' added"),
        (("0" * 64, "seeds 1", [ONE._replace(threshold=0.4), TWO]), "threshold of claim 'one'"),
        (("0" * 64, "seeds 1", [ONE, TWO._replace(share=0.5, statement="x")]), "statement, share of claim 'two'"),
    ]
    for judged, words in cases:
        said = first.compared(*judged)
        assert said == (words if words.startswith("as") else f"differs from what was registered on {day}: {words}")


def test_nothing_is_registered_twice_and_nothing_damaged_is_believed(tmp_path, one_line):
    one = register("s", "quick", "0" * 64, "seeds 1", [ONE])
    path = write_registration(tmp_path, one)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        write_registration(tmp_path, one)
    one_line(caught, "out", str(path))
    assert path.read_bytes() == before and read_registration(tmp_path, "s", "cpu") is None
    for text in (b"", b"{", b"[]", before.replace(b'"share"', b'"shares"'), before.replace(b"0.5", b"1e999", 1)):
        path.write_bytes(text)
        with pytest.raises(InputError) as caught:
            read_registration(tmp_path, "s", "quick")
        one_line(caught, "registration", str(path))


def test_a_verdict_says_whether_it_is_as_registered(tmp_path):
    study = TRANSIENCE._replace(registrations=str(tmp_path / "registered"))
    icl = np.tile([0.5, 0.9, 0.6], (6, 1))
    curves = {"icl": icl, "iwl": 1 - icl, "ciwl": 1 - icl}
    run = write_run(tmp_path / "run", curves, icl, label={"study": "transience", "preset": "quick"})
    assert conclude_run(study, run).registered == "not registered"
    plan = setup(study).plan()
    seeds = conclude_run(study, run).seeds
    for work, words in ((run.header.digest, "as registered"), (plan.work_digest(), "differs from what was registered")):
        folder = tmp_path / work[:8]
        study = study._replace(registrations=str(folder))
        write_registration(folder, register("transience", "quick", work, seeds, study.experiments[0].claims))
        assert conclude_run(study, run).registered.startswith(words)
    changed = write_run(tmp_path / "changed", curves, icl, label={"study": "transience", "preset": "quick*"})
    assert conclude_run(study, changed).registered == "not registered: fields were changed"


def test_the_command_writes_what_the_plan_will_compute(tmp_path, capsys):
    words = ["prereg", "transience", "--experiment", "l2", "--out", str(tmp_path)]
    assert main(words) == 0
    found = read_registration(tmp_path, "transience/l2", "quick")
    plan = setup(TRANSIENCE, "l2").plan()
    assert found is not None and isinstance(plan, SweepPlan)
    assert found[0].compared(plan.work_digest(), plan.seed_words(), plan.claims()).startswith("as registered")
    assert f"{len(plan.claims())} claims in" in capsys.readouterr().out
    assert main(words) == 2 and "was registered before" in capsys.readouterr().err


def test_a_study_in_a_file_registers_beside_the_file(tmp_path, capsys):
    from ebbtide.papers.registry import resolve_study

    file = tmp_path / "mine.py"
    file.write_text(Path("examples/own_study.py").read_text())
    assert main(["prereg", str(file)]) == 0
    assert [path.parent.name for path in tmp_path.rglob("*.json")] == ["mine.registered"]
    assert resolve_study(str(file)).registrations_folder() == tmp_path / "mine.registered"


def fresh_presets() -> list[tuple[str, str, int, int]]:
    """Name, preset, members and round of every comparison that has seeds of its own."""
    found = []
    for study in STUDIES:
        for experiment in study.experiments:
            for name, preset in experiment.presets.items():
                if isinstance(preset.work, Comparison) and preset.work.round:
                    found.append((study.full_name(experiment), name, preset.work.members, preset.work.round))
    return found


def test_no_two_experiments_share_seeds_or_worlds():
    """So a run stands in one table only, and experiments of one study are independent draws."""
    blocks = [verdict_seed(name, preset, one) for name, preset, _, one in fresh_presets()]
    assert len(set(blocks)) == len(blocks)
    assert all(
        members <= SEED_BLOCK and seed >= SEED_BLOCK
        for (_, _, members, _), seed in zip(fresh_presets(), blocks, strict=True)
    )


def test_seeds_follow_from_the_name_and_are_no_ones_choice():
    assert verdict_seed("transience/l2", "quick", 1) != verdict_seed("transience/l2", "quick", 2)
    assert verdict_seed("transience/l2", "quick", 1) != verdict_seed("transience/l2", "cpu", 1)
    rounds = [verdict_seed("transience/l2", "quick", one) for one in range(200)]
    assert len(set(rounds)) == 200 and max(rounds) < 2**29 and {seed % SEED_BLOCK for seed in rounds} == {0}
    point = seeds_of_round("transience/l2", "quick", 1)
    assert (
        set(point) == {"seeds.init", "seeds.data", "seeds.evaluation", "seeds.world"} and len(set(point.values())) == 1
    )
    assert set(seeds_of_round("transience/l2", "quick", 0).values()) == {50}


def test_a_registration_holds_data_only(tmp_path):
    path = write_registration(tmp_path, register("s", "quick", "0" * 64, "seeds 1", [ONE]))
    data = msgspec.json.decode(path.read_bytes())
    assert set(data) == {"experiment", "preset", "work", "seeds", "claims", "created", "version"}
    assert set(data["claims"][0]) == {"name", "statement", "source", "metric", "threshold", "share", "arms"}
