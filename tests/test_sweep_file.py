"""Sweep files: what they mean, and what is refused in one line."""

from pathlib import Path

import msgspec
import pytest

from ebbtide.errors import InputError
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.sweep import Sweep, read_sweep

TEXT = """
name = "try"
study = "transience"
task_minutes = 3

[base]
sequences = 1e6
"task.labels" = "shared"
"task.labels.count" = 8

[[axes]]
field = "model.width"
values = [16, 32]

[[axes]]
chain = [
  { field = "optimizer.lr", log = [1e-4, 1e-2, 3] },
  { zip = [ { field = "optimizer", values = ["sgd"] }, { field = "task.zipf", values = [1.0] } ] },
]

[[axes]]
seeds = 4

[resources]
cpus = 2
partition = "short"
slurm = { account = "lab" }
"""


def write(folder: Path, text: str, name: str = "s.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_toml_file_says_what_the_structs_say(tmp_path):
    sweep = read_sweep(write(tmp_path, TEXT))
    assert sweep.size() == 2 * 4 * 4 == len(sweep.points())
    assert sweep.fields() == ["model.width", "optimizer.lr", "optimizer", "task.zipf", "seeds.member"]
    assert sweep.axes[0] == Axis(field="model.width", values=[16, 32])
    spec = sweep.spec()
    assert spec.sequences == 1_000_000 and spec.members == 1 and spec.task.labels.total(99) == 8  # pyright: ignore
    assert sweep.resources.partition == "short" and sweep.resources.slurm == {"account": "lab"}


def test_a_sweep_is_read_back_from_its_own_json(tmp_path):
    sweep = read_sweep(write(tmp_path, TEXT))
    path = tmp_path / "again.json"
    path.write_bytes(sweep.to_json())
    assert read_sweep(path) == sweep
    assert msgspec.json.decode(sweep.to_json(), type=Sweep) == sweep


def test_without_a_study_the_base_is_the_default_spec():
    from ebbtide import Spec

    assert Sweep(name="plain").spec() == Spec()


BAD = {
    "unknown field": ('name = "a"\nbased = 1', r"based = 1: no such field \(did you mean 'base'\?\)"),
    "unknown field of an axis": ('name = "a"\n[[axes]]\nfields = "x"\nvalues = [1]', r"axes\.0\.fields"),
    "no name": ("task_minutes = 2", "name"),
    "bad name": ('name = "a/b"', "name = 'a/b'"),
    "unknown study": ('name = "a"\nstudy = "transient"', "did you mean 'transience'"),
    "unknown preset": ('name = "a"\nstudy = "transience"\npreset = "quack"', "preset = 'quack'"),
    "unknown base field": ('name = "a"\n[base]\n"model.wdth" = 3', r"model\.wdth = 3.*did you mean 'width'"),
    "members": ('name = "a"\n[base]\nmembers = 3', "members"),
    "vary": ('name = "a"\n[[axes]]\nfield = "vary"\nvalues = [{}]', "vary"),
    "one field on two axes": (
        'name = "a"\n[[axes]]\nseeds = 2\n[[axes]]\nfield = "seeds.member"\nvalues = [1]',
        r"seeds\.member.*two axes",
    ),
    "too many points": (
        'name = "a"\n' + "".join(f'[[axes]]\nfield = "f{i}"\nlinear = [0, 1, 101]\n' for i in range(3)),
        "points",
    ),
    "wrong type": ('name = "a"\ntries = "many"', "tries = 'many'"),
    "no tries": ('name = "a"\ntries = 0', "tries = 0"),
    "not TOML": ("name = ", "is not TOML"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(name, tmp_path):
    text, words = BAD[name]
    with pytest.raises(InputError, match=words) as error:
        read_sweep(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_python_is_not_executed(tmp_path):
    script = write(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')", "s.py")
    with pytest.raises(InputError, match="run_sweep"):
        read_sweep(script)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["absent.toml", "absent.json", "s.yaml", "folder.toml"])
def test_what_is_no_such_file_is_refused(name, tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match="sweep = "):
        read_sweep(tmp_path / name)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InputError, match="is not TOML"):
        read_sweep(tmp_path / "s.toml")
