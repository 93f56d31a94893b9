"""What this machine says of itself is in the units that it is used in."""

import sys

import pytest

from ebbtide import machine


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_in_bytes_whatever_the_system_counts_in(monkeypatch, platform, factor):
    class Usage:
        ru_maxrss = 3_000_000

    asked = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(machine.resource, "getrusage", lambda who: asked.append(who) or Usage)
    assert machine.peak_memory() == machine.peak_memory(of_children=True) == factor * Usage.ru_maxrss
    assert asked == [machine.resource.RUSAGE_SELF, machine.resource.RUSAGE_CHILDREN]
