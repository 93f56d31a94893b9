"""The identity of a run: the versions, hardware and data on which its bits depend, and how two identities compare."""

from typing import Any

from ebbtide.runs.records import Header, Manifest


def numeric_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's identity on which its bits depend (the number of processes is no part of it). Runs older than
    the compiled kernel do not name a kernel: theirs is XLA."""
    shared = ("processes", "chosen", "hosts", INPUT_NAME)
    kept = {name: value for name, value in identity.items() if name not in shared}
    return {"kernel": "xla"} | kept


INPUT_NAME, INPUTS = "source_file", ("source_sha256", "start_sha256")
"""Keys of an identity that describe the data files that a run reads (see `training.inputs`)."""
RECORDED_LATER = ("features", *INPUTS)
"""Keys of the numeric identity that runs of earlier versions do not have."""


def original_identity(header: Header, manifest: Manifest | None) -> dict[str, Any]:
    """The identity in run.json, completed by the given manifest where an earlier version did not record a key."""
    late = {name: value for name, value in manifest.identity.items() if name in RECORDED_LATER} if manifest else {}
    return late | header.identity


def identity_differences(before: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The keys of the numeric identity in which `here` differs from `before`; a key that an older run did not record
    cannot differ."""
    one, other = numeric_identity(before), numeric_identity(here)
    unknown = [name for name in RECORDED_LATER if name not in one]
    return [name for name in sorted(one | other) if one.get(name) != other.get(name) and name not in unknown]
