"""A broken accelerator is one line on standard error and the CPU takes its place; without one nothing is said."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebbtide.device_messages import LOG_LEVEL, LOGGER, BrokenDevices, call_with_fallback, quiet_devices
from ebbtide.errors import InputError

WORDS = "the library of this chip is older\nthan its driver"
AT_IMPORT = f"raise ImportError({WORDS!r})"
AT_START = f"""
def initialize():
    raise RuntimeError({WORDS!r})
"""
AT_FIRST_USE = f"""
from jax._src.xla_bridge import register_backend_factory

def factory():
    raise RuntimeError({WORDS!r})

def initialize():
    register_backend_factory("chip", factory, priority=500, fail_quietly=False)
"""
OWN = """
import jax
import ebbtide as eb

assert jax.devices()[0].platform == "cpu"

class Mine(eb.FewShot, frozen=True):
    pass
"""
BROKEN = {"at import": AT_IMPORT, "at start": AT_START, "at first use": AT_FIRST_USE}
SCRIPT = """
import os
from ebbtide.device_messages import call_with_fallback, quiet_devices
quiet_devices(os.environ)
import jax
print(call_with_fallback(lambda: jax.devices()[0].platform), jax.numpy.ones(2).sum())
"""


def environment(folder: Path, plugin: str | None, **more: str) -> dict[str, str]:
    """The environment of a process that finds this plugin of JAX, and no choice of platforms."""
    if plugin is not None:
        package = folder / "jax_plugins" / "chip"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(plugin)
    clean = {name: value for name, value in os.environ.items() if name not in (LOG_LEVEL, "JAX_PLATFORMS")}
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return clean | {"PYTHONPATH": os.pathsep.join(paths)} | more


def python(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=300)


def check_one_line(text: str) -> None:
    assert len(text.splitlines()) == 1 and text.startswith("ebbtide: an accelerator cannot be used, the CPU takes")
    assert "the library of this chip is older than its driver" in text and "chip" in text


@pytest.mark.parametrize("where", BROKEN)
def test_a_broken_accelerator_is_one_line_and_the_cpu_is_used(where, tmp_path):
    done = python(environment(tmp_path, BROKEN[where]), "-c", SCRIPT)
    assert done.returncode == 0 and done.stdout.split() == ["cpu", "2.0"]
    check_one_line(done.stderr)


def test_a_command_goes_on_with_the_cpu(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    words = ("-m", "ebbtide", "run", "transience", "--dry-run", "--task", f"{file}:Mine")
    done = python(environment(tmp_path, AT_FIRST_USE), *words)
    assert done.returncode == 0 and '"task"' in done.stdout
    check_one_line(done.stderr)


def test_a_machine_without_accelerators_hears_nothing(tmp_path):
    done = python(environment(tmp_path, None), "-c", SCRIPT)
    assert done.returncode == 0 and done.stdout.split() == ["cpu", "2.0"] and done.stderr == ""


def test_who_chooses_what_xla_logs_gets_every_message(tmp_path):
    done = python(environment(tmp_path, AT_START, **{LOG_LEVEL: "0"}), "-c", SCRIPT)
    assert "Traceback" in done.stderr and "ebbtide:" not in done.stderr


def test_an_accelerator_that_was_asked_for_is_not_replaced(monkeypatch):
    def fails() -> None:
        raise RuntimeError("Unable to initialize backend 'chip': broken")

    monkeypatch.setenv("JAX_PLATFORMS", "chip")
    with pytest.raises(InputError, match=r"^JAX_PLATFORMS = 'chip': cannot be used here \(Unable .*; leave it unset"):
        call_with_fallback(fails)


def test_other_errors_pass():
    def fails() -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match=r"^something else$"):
        call_with_fallback(fails)


def test_only_the_first_message_about_something_broken_is_written(capsys):
    one = BrokenDevices()

    def passes(level: int, text: str) -> bool:
        return one.filter(logging.LogRecord(LOGGER, level, "", 0, text, None, None))

    assert passes(logging.INFO, "found a chip")
    assert not passes(logging.WARNING, "An NVIDIA GPU may be present on this machine")
    assert capsys.readouterr().err == ""
    assert not passes(logging.WARNING, "CUDA backend failed to initialize: no driver")
    assert not passes(logging.ERROR, "and another thing")
    assert capsys.readouterr().err.splitlines() == [
        "ebbtide: an accelerator cannot be used, the CPU takes its place: CUDA backend failed to initialize: no driver"
    ]


def test_the_level_of_the_log_is_a_default():
    chosen = {LOG_LEVEL: "1"}
    quiet_devices(chosen)
    assert chosen == {LOG_LEVEL: "1"}
