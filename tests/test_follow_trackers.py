"""`ebbtide follow` against the trackers themselves, off line: what they hold is what the run folder holds, whenever the
process was killed."""

import json
import random
import signal
import time

import numpy as np
import pytest

from ebbtide.runs.folder import RunFolder
from effort import THOROUGH
from follow_tools import READERS, Growing, followed, process, rows_of, skip_without

TRACKERS = sorted(READERS)


@pytest.fixture(params=TRACKERS)
def tracker(request) -> str:
    skip_without(request.param)
    return request.param


def test_a_run_that_grows_is_followed_to_its_end_and_not_sent_again(tracker, tmp_path):
    run = Growing(tmp_path / "runs/one", total=8)
    run.curves["icl"][0] = [0.5, 0.8, 0.9, 0.9, 0.6, 0.5, 0.5, 0.5]
    run.curves["icl"][1, 5:] = np.nan
    words = ["one", "--to", tracker, "--out", "out"]
    run.grow(3)
    one = process(words, tmp_path)
    time.sleep(1.5)  # some commits are there before the process looks, some come while it does
    while run.rows < run.total:
        run.grow()
        time.sleep(0.2)
    run.close()
    said, _ = one.communicate(timeout=60)
    assert one.returncode == 0 and "one: complete; 16 evaluations sent" in said, said
    folder = RunFolder(run.path)
    found = READERS[tracker](tmp_path / "out")
    assert found.values == rows_of(folder)
    assert len(found.alerts) == found.alerts.total() == 3, found.alerts
    assert sum("member 1 diverged at 1,280 sequences" in text for text in found.alerts) == 1
    assert sum("ICL of member 0 fell below half its peak" in text for text in found.alerts) == 1
    config = found.configs["one/1"]
    assert config["member"] == config["number"] == 1 and config["model.width"] == 16
    assert config["digest"] == folder.header.digest and config["optimizer.lr"] == 3e-3
    code, again = followed([*words, "--once"], tmp_path)
    assert code == 0 and "0 evaluations sent, 16 were there" in again and "diverged" not in again, again
    after = READERS[tracker](tmp_path / "out")
    assert (after.values, after.alerts) == (found.values, found.alerts)


def test_killed_at_any_moment_and_started_again_there_is_no_gap_and_nothing_twice(tracker, tmp_path):
    kills = 40 if THOROUGH else {"tensorboard": 6, "trackio": 4, "wandb": 3}[tracker]
    longest = {"tensorboard": 0.6, "trackio": 1.0, "wandb": 2.5}[tracker]
    run, rng = Growing(tmp_path / "runs/one", total=30 * kills), random.Random(tracker)
    run.curves["icl"][0, 10:] = 0.5
    told = tmp_path / "told"
    alert = ["--alert", f"tee -a {told}"]
    words = ["one", "--to", tracker, "--out", "out", *alert]
    for i in range(kills):
        one = process(words, tmp_path)
        assert one.stdout is not None and "following one" in one.stdout.readline()
        until = time.monotonic() + rng.uniform(0, longest)
        while time.monotonic() < until:
            if run.rows < 30 * (i + 1) - 1:
                run.grow()
            time.sleep(0.02)
        one.send_signal(signal.SIGKILL if i % 3 else signal.SIGINT)
        said, _ = one.communicate(timeout=60)
        assert one.returncode in (-signal.SIGKILL, 130), said
    run.grow(run.total - run.rows)
    run.close()
    code, said = followed(words, tmp_path)
    assert code == 0, said
    found = READERS[tracker](tmp_path / "out")
    assert found.values == rows_of(RunFolder(run.path))
    assert found.alerts.total() == len(found.alerts) == 2, found.alerts
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert len({one["id"] for one in lines}) == 2
    assert len([one for one in lines if not one["again"]]) == 2


def test_hostile_names_are_text(tracker, tmp_path):
    names = ("icl", "_step", "../../../x", "<b>[red]b", "$(touch pwned)")
    folder = tmp_path / "runs/<i>[bold]a $(touch pwned)"
    run = Growing(folder, total=3, names=names)
    run.grow(3)
    run.close()
    words = [str(folder), "--to", tracker, "--out", "out", "--once", "--alert", "tee -a told"]
    code, said = followed(words, tmp_path)
    assert code == 0 and f"{folder.name}: complete" in said, said
    found = READERS[tracker](tmp_path / "out")
    curves = {curve.removeprefix("curve ") for _, _, curve, _ in found.values}
    assert {*names, "train_loss", "../../../x/loss"} <= curves
    assert found.values.total() == rows_of(RunFolder(folder)).total()
    assert not list(tmp_path.rglob("pwned")) and not (tmp_path / "x").exists()
    assert json.loads((tmp_path / "told").read_text())["run"] == folder.name


def test_a_series_for_each_configuration_has_mean_interval_and_number(tmp_path):
    skip_without("tensorboard")
    run = Growing(tmp_path / "runs/one", total=4, members=7)
    run.curves["icl"][2, 2:] = np.nan
    run.grow(4)
    run.close()
    code, said = followed(["one", "--to", "tensorboard", "--out", "out", "--per", "cell", "--once"], tmp_path)
    assert code == 0 and "4 evaluations sent" in said, said
    found = READERS["tensorboard"](tmp_path / "out").values
    last = {curve: value for _, at, curve, value in found if at == 768}
    kept = RunFolder(run.path).metrics()["icl"][[0, 1, 3, 4, 5, 6], -1].astype(np.float64)
    assert last["icl/n"] == 6 and last["iwl/n"] == 7
    wanted = [kept.mean(), np.median(kept), kept.min(), kept.max()]
    got = [last[f"icl/{name}"] for name in ("mean", "median", "low", "high")]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_export_to_wandb_is_the_same_road(tmp_path):
    skip_without("wandb")
    run = Growing(tmp_path / "runs/one", total=3)
    run.grow(3)
    run.close()
    code, said = followed(["one", "--format", "wandb", "--out", "project"], tmp_path, "export")
    assert code == 0 and "project project" in said, said
    assert READERS["wandb"](tmp_path).values == rows_of(RunFolder(run.path))
