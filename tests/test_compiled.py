"""The suite's compile cache: what one process compiled another may use, never half of it."""

import os
from pathlib import Path

import jax
import pytest
from jax._src import compiler
from jax._src.compilation_cache import compress_executable

import compiled


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    return one, other


def test_whole_entries_are_exchanged_and_half_ones_are_not(folders):
    one, other = folders
    entry = compress_executable(b"a program" * 100)
    for name, held in (("whole-cache", entry), ("half-cache", entry[:-3]), ("begun-cache", b""), ("note", entry)):
        (one / name).write_bytes(held)
    compiled.copy(one, other)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == {"whole-cache": entry}


def test_an_entry_that_is_there_stays_as_it_is(folders):
    one, other = folders
    (one / "a-cache").write_bytes(compress_executable(b"new"))
    (other / "a-cache").write_bytes(b"there")
    compiled.copy(one, other)
    assert (other / "a-cache").read_bytes() == b"there"


def test_entries_that_were_not_used_for_longest_go_first(tmp_path):
    for age in range(4):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 10 * age))  # used, written
    compiled.trim(tmp_path, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-cache", "1-cache"]


def test_a_large_entry_is_not_shared(folders, monkeypatch):
    one, other = folders
    (one / "a-cache").write_bytes(compress_executable(b"a program"))
    monkeypatch.setattr(compiled, "LARGEST", (one / "a-cache").stat().st_size - 1)
    compiled.copy(one, other)
    assert not list(other.iterdir())


def test_the_folder_of_a_process_that_was_killed_is_removed(tmp_path):
    """This process's own folder has its lock, too."""
    lives, died, older = (tmp_path / f"process-{name}" for name in ("lives", "died", "older"))
    for folder in (lives, died, older):
        folder.mkdir()
    lock = compiled.claim(lives)
    os.close(compiled.claim(died))
    compiled.remove_abandoned(tmp_path)
    os.close(lock)
    assert lives.is_dir() and older.is_dir() and not died.exists()
    assert (compiled.OWN / "lock").is_file()


def test_a_folder_into_which_others_may_write_is_not_used(tmp_path):
    """Who can write an entry can have any code run."""
    made = compiled.private(tmp_path / "new" / "folder")
    assert made is not None and made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    assert compiled.private(made) is None
    (tmp_path / "file").write_bytes(b"")
    assert compiled.private(tmp_path / "file") is None
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert compiled.private(link / "file") is None


def test_every_process_of_the_suite_compiles_into_a_folder_of_its_own():
    own = str(compiled.OWN)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == jax.config.values["jax_compilation_cache_dir"] == own
    assert compiled.SHARED != compiled.OWN and len(compiled.machine()) == 16


def test_what_names_an_entry_does_not_depend_on_the_folder():
    """Else no process would find what another has compiled."""
    options = compiler.get_compile_options(1, 1).SerializeAsString()
    assert len(options) > 100 and str(compiled.OWN).encode() not in options


def test_importing_the_test_files_compiles_nothing():
    """Every pytest process imports all of them, and so does a run of one test: a model at the top of a file is
    compiled each time."""
    assert compiled.AT_IMPORT == []
