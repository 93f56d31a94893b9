"""What names things on users' disks, of every preset that is shipped: `python tests/make_identities.py` writes
golden/identities.json and golden/verdicts. To be called when a preset is added or changed on purpose, and never to
please a test: what it names is what finished runs and sweeps are found by."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.papers.registry import COMPUTED, STUDIES, find_any, find_study
from ebbtide.studies.computed import conclude_computed
from ebbtide.studies.experiment import (
    asked_digest,
    conclude_experiment,
    description_digest,
    digest,
    make_sweep,
)
from ebbtide.studies.study import conclude, digest_of_claims
from ebbtide.sweeps.plan import group
from sweep_tools import made
from tiny import write_run

FILE = Path(__file__).parent / "golden/identities.json"
VERDICTS = Path(__file__).parent / "golden/verdicts"


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def identities() -> dict[str, dict[str, Any]]:
    """Digests of every run, sweep, member and list of claims, by study, experiment and preset."""
    found: dict[str, dict[str, Any]] = {}
    for study in STUDIES:
        for name, preset in study.presets.items() if study.claims else ():
            spec = preset.spec
            found[f"{study.name} {name}"] = {
                "spec": spec.digest(),
                "json": digest_of(spec.to_json()),
                "members": spec.addresses(),
                "claims": digest_of_claims(study.claims),
            }
        for one in study.experiments:
            for name, setting in one.settings.items():
                sweep = make_sweep(study, one, name)
                members = [address for group_ in group(sweep, sweep.points()) for address in group_.addresses]
                found[f"{study.name}/{one.name} {name}"] = {
                    "folder": description_digest(sweep),
                    "asked": asked_digest(sweep),
                    "verdict": digest(sweep),
                    "base": sweep.spec().digest(),
                    "members": digest_of("".join(members).encode()),
                    "donor": setting.donor.path if setting.donor else None,
                    "claims": digest_of_claims(one.asked(setting.arms)),
                }
    for study in COMPUTED:
        for name, preset in study.presets.items():
            found[f"{study.name} {name}"] = {
                "setting": preset.setting.digest(),
                "claims": digest_of_claims(study.claims),
            }
    return found


def verdicts(folder: Path) -> dict[str, bytes]:
    """verdict.json of a run, of an experiment and of a computation, the first two of curves written by hand; a dash
    stands in place of the version that judged them."""
    run, sweep, computed = folder / "run", folder / "sweep", folder / "computed"
    study = find_study("transience")
    names = ("icl", "iwl", "ciwl")
    rng = np.random.default_rng(0)
    curves = {name: rng.random((4, 9)) for name in names}
    spec = study.presets["quick"].spec
    conclude(study, write_run(run, curves, rng.random((4, 9)), spec=spec))
    experiment = study.experiment("burstiness")
    conclude_experiment(study, experiment, "quick", made(sweep, make_sweep(study, experiment, "quick")))
    conclude_computed(find_any("toy-laws"), "quick", [("seeds", "3")], computed)  # pyright: ignore[reportArgumentType]
    found = {}
    for name, path in (("run", run), ("sweep", sweep), ("computed", computed)):
        verdict: dict[str, Any] = msgspec.json.decode((path / "verdict.json").read_bytes())
        assert verdict["version"]
        found[name] = msgspec.json.format(msgspec.json.encode(verdict | {"version": "-"}), indent=1)
    return found


def main() -> None:
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(identities()), indent=1))
    VERDICTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in verdicts(Path(folder)).items():
            (VERDICTS / f"{name}.json").write_bytes(data)


if __name__ == "__main__":
    main()
