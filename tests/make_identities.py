"""What names things on users' disks, of every preset that is shipped: `python tests/make_identities.py` writes
golden/identities.json and golden/verdicts. To be called when a preset is added or changed on purpose, and never to
please a test: what it names is what finished runs and sweeps are found by."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.papers.registry import STUDIES, find_study
from ebbtide.studies.claim import digest_of_claims
from ebbtide.studies.comparison import (
    SweepPlan,
    conclude_sweep,
    description_digest,
    question_digest,
    verdict_digest,
)
from ebbtide.studies.computation import ComputationPlan
from ebbtide.studies.single_run import RunPlan, conclude_run
from ebbtide.studies.study import setup
from ebbtide.sweeps.plan import group
from ideal_functions import LAWS, law_curves
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
        for one in study.experiments:
            for name in one.presets:
                found[f"{study.full_name(one)} {name}"] = names_of(setup(study, one.name, name).plan())
    return found


def names_of(plan: Any) -> dict[str, Any]:
    """The digests of one preset's work."""
    claims = plan.setup.experiment.claims
    match plan:
        case RunPlan(_, spec):
            names = {"spec": spec.digest(), "json": digest_of(spec.to_json()), "members": spec.addresses()}
        case ComputationPlan(_, computation):
            names = {"setting": computation.setting.digest()}
        case SweepPlan(_, comparison):
            sweep, donor = plan.sweep, comparison.donor
            members = [address for one in group(sweep, sweep.points()) for address in one.addresses]
            claims = plan.setup.experiment.claims_on(comparison.arms)
            names = {
                "folder": description_digest(sweep),
                "asked": question_digest(sweep),
                "verdict": verdict_digest(sweep),
                "base": sweep.spec().digest(),
                "members": digest_of("".join(members).encode()),
                "donor": donor.path if donor else None,
            }
        case _:
            raise TypeError(plan)
    return names | {"claims": digest_of_claims(claims)}


def verdicts(folder: Path) -> dict[str, bytes]:
    """verdict.json of a run, of an experiment and of a computation, all of curves written by hand; a dash stands in
    place of the version that judged them."""
    run, sweep, computed = folder / "run", folder / "sweep", folder / "computed"
    study = find_study("transience")._replace(registrations=str(folder))
    names = ("train", "icl", "iwl", "ciwl")
    rng = np.random.default_rng(0)
    curves = {name: rng.random((6, 9)) for name in names}
    spec = study.base("quick").spec
    conclude_run(study, write_run(run, curves, rng.random((6, 9)), spec=spec))
    plan = setup(study, "burstiness").plan()
    assert isinstance(plan, SweepPlan)
    conclude_sweep(study, plan.setup.experiment, "quick", made(sweep, plan.sweep))
    laws = setup(find_study("toy-laws")._replace(registrations=str(folder)), fields=[("seeds", "3")]).plan()
    assert isinstance(laws, ComputationPlan)
    by_hand = laws.computation._replace(compute=lambda setting: law_curves(setting, LAWS.__getitem__, 1))
    laws._replace(computation=by_hand).conclude(computed)
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
