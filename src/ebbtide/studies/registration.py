"""Registrations: what is claimed, on which seeds and in which setting, written to a file before the verdict run."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ebbtide import __version__
from ebbtide.errors import InputError
from ebbtide.runs.atomic import write_file
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import UNREADABLE, DamagedError, check_plain
from ebbtide.studies.claim import Claim

LARGEST = 2**20
"""Bytes of a file; ours have some thousand."""

SEED_BLOCK = 1024
"""Numbers between the seeds of two experiments: more than any has members."""


def verdict_seed(experiment: str, preset: str, round: int) -> int:
    """The number from which the seeds of an experiment's verdict run count: the SHA-256 of its name, preset and round
    of seeds picks one of 2^19 blocks of 1,024 numbers. So nobody chooses seeds, no two experiments share them, and a
    claim that is judged again after its setting was changed gets new ones with the next round.

    >>> verdict_seed("transience/l2", "quick", 1) % 1024
    0
    """
    words = f"{experiment} {preset} {round}".encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:8], "big") % 2**19 * SEED_BLOCK


class RegisteredClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a claim says; its estimate is code, and named by the version of ebbtide."""

    name: str
    statement: str
    source: str
    metric: str
    threshold: float
    share: float
    arms: list[str]


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file NAME-PRESET.json of an experiment.

    Args:
        experiment: full name of the experiment.
        preset: name of the preset.
        work: digest of the work: of the run's spec, the sweep's description or the computation's setting.
        seeds: the seeds, in words.
        claims: the claims.
        created: date and time, UTC.
        version: version of ebbtide.
    """

    experiment: str
    preset: str
    work: str
    seeds: str
    claims: list[RegisteredClaim]
    created: str
    version: str

    def compared(self, work: str, seeds: str, claims: Iterable[Claim]) -> str:
        """Words on what was judged, beside what was registered: `as registered (2026-11-29)`, or what differs."""
        found = {claim.name: claim for claim in map(_registered, claims)}
        planned = {claim.name: claim for claim in self.claims}
        changed = [f"claim {name!r} dropped" for name in planned if name not in found]
        changed += [f"claim {name!r} added" for name in found if name not in planned]
        for name in planned.keys() & found.keys():
            fields = [
                one
                for one in planned[name].__struct_fields__
                if getattr(planned[name], one) != getattr(found[name], one)
            ]
            changed += [f"{', '.join(fields)} of claim {name!r}"] if fields else []
        if seeds != self.seeds:
            changed.append("seeds")
        elif work != self.work:
            changed.append("setting")
        day = self.created[:10]
        return (
            f"differs from what was registered on {day}: {'; '.join(sorted(changed))}"
            if changed
            else f"as registered on {day}"
        )


def register(experiment: str, preset: str, work: str, seeds: str, claims: Iterable[Claim]) -> Registration:
    """The registration of an experiment at a preset, as of now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Registration(experiment, preset, work, seeds, [_registered(one) for one in claims], now, __version__)


def _registered(claim: Claim) -> RegisteredClaim:
    return RegisteredClaim(
        claim.name, claim.statement, claim.source, claim.metric, float(claim.threshold), claim.share, list(claim.arms)
    )


def file_name(experiment: str, preset: str) -> str:
    """`transience-l2-quick.json`."""
    return f"{experiment.replace('/', '-')}-{preset}.json"


def write_registration(folder: Path, one: Registration) -> Path:
    """Writes a registration into a folder, and returns its path. Raises `InputError` where the file is there: what was
    registered is not registered again."""
    path = folder / file_name(one.experiment, one.preset)
    if path.exists() or path.is_symlink():
        raise InputError("out", str(path), "is there: it was registered before; move it away to register anew")
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, msgspec.json.format(msgspec.json.encode(one), indent=1) + b"\n")
    return path


def read_registration(folder: Path, experiment: str, preset: str) -> tuple[Registration, str] | None:
    """The registration of an experiment in a folder, and the SHA-256 of its file; None where there is none. Raises
    `InputError` for a file that cannot be decoded."""
    name = file_name(experiment, preset)
    if not (folder / name).is_file():
        return None
    try:
        data = read_bounded(folder, name, LARGEST)
        found = msgspec.json.decode(data, type=Registration)
        check_plain(msgspec.to_builtins(found), name)
    except (DamagedError, *UNREADABLE) as error:
        raise InputError("registration", str(folder / name), f"is damaged: {error}") from error
    return found, hashlib.sha256(data).hexdigest()
