"""Exports for other tools: the public code's HDF5 layout."""

import json
import sys

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.report.export import export
from tiny import write_run

CURVES = {"icl": [[0.5, 0.75, 1.0], [0.5, 0.25, 0.75]], "iwl": [[0.0, 0.125, 0.5], [0.0, 0.25, 0.5]]}
LOSS = [[np.nan, 4.0, 2.0], [np.nan, 3.0, 1.0]]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", CURVES, LOSS)


def test_hdf5_has_the_layout_of_the_public_code(run, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (pip install 'ebbtide[hdf5]')")
    out = tmp_path / "out"
    assert export(run, "hdf5", out) == 6
    for member in range(2):
        folder = out / f"member_{member:03d}"
        config = json.loads((folder / "config.json").read_text())
        assert config["member"] == member and config["batch"] == run.header.spec["batch"]
        with h5py.File(folder / "log.h5") as file:
            np.testing.assert_array_equal(file["eval_iter"], run.metrics()["sequences"])
            for name, curves in (("icl/in_context_acc", CURVES["icl"]), ("iwl/acc", CURVES["iwl"])):
                np.testing.assert_array_equal(file[name], np.asarray(curves[member], np.float32)[:, None])
            np.testing.assert_array_equal(file["train_loss"], LOSS[member][1:])
            assert len(file["train_iter"]) == len(file["train_loss"]) == 2
    with pytest.raises(InputError, match="exists"):
        export(run, "hdf5", out)
    assert not list(tmp_path.glob(".tmp*"))


def test_without_the_extra_one_line_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="needs h5py: pip install"):
        export(run, "hdf5", tmp_path / "out")
    assert not (tmp_path / "out").exists()
