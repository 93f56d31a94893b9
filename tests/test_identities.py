"""What names runs, sweeps and members on users' disks, and what a verdict says, is the same in every version."""

from pathlib import Path

import msgspec
import pytest

from make_identities import FILE, VERDICTS, identities, verdicts

pytestmark = pytest.mark.usefixtures("quick_compile")

FROZEN = msgspec.json.decode(FILE.read_bytes())


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, object]]:
    return msgspec.json.decode(msgspec.json.encode(identities()))


def test_every_preset_is_frozen(found):
    """A new preset is added to the file by make_identities.py."""
    assert found.keys() == FROZEN.keys()


@pytest.mark.parametrize("name", FROZEN)
def test_the_names_on_disk_are_those_of_earlier_versions(found, name):
    assert found[name] == FROZEN[name]


def test_a_verdict_is_written_byte_for_byte_as_by_earlier_versions(tmp_path: Path):
    for name, data in verdicts(tmp_path).items():
        assert data.decode() == (VERDICTS / f"{name}.json").read_text(), name
