"""A field is the same computation whether it is written plainly or varied between members: they have one address."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.glyphs import Glyphs
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.tasks.prompt import Prompt, Tag
from ebbtide.tasks.relabel import LabelNoise
from ebbtide.traced import replace_at, traced_fields
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import SGD, Adam, WeightDecay
from ebbtide.training.spec import Spec
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")
GAUSSIAN = Gaussian(classes=64, exemplars=2, dim=8, holdout_classes=8, holdout_exemplars=2)
TASK = FewShot(context=6, burst=2, rest="unique", labels=Shared(8))
DECAYED = Adam(lr=3e-3, decay=WeightDecay(coefficient=1e-3))
PLAIN = replace(SPEC, task=TASK, source=GAUSSIAN, optimizer=DECAYED, members=1)
DRAWN = Glyphs(classes=24, exemplars=2, holdout_classes=4, holdout_exemplars=2)
SPECS = {"gaussian": PLAIN, "sgd": replace(PLAIN, optimizer=SGD(lr=1e-2)), "glyphs": replace(PLAIN, source=DRAWN)}
SPECS["noisy"] = replace(PLAIN, task=replace(TASK, relabel=LabelNoise()))
VALUES = {
    "task.zipf": [0.0, 1.0],
    "task.p_bursty": [0.0, 0.6, 1.0],
    "task.relabel.share": [0.0, 0.3, 1.0],
    "source.noise": [0.0, 1.0],
    "source.motor": [0.0, 1.0],
    "optimizer.lr": [1e-3],
    "optimizer.decay.coefficient": [0.0, 1e-2],
}
"""Values of the traced fields; those at which code might take another way (0 and 1) among them."""
CASES = [
    ("gaussian", "task.zipf"),
    ("gaussian", "task.p_bursty"),
    ("gaussian", "source.noise"),
    ("gaussian", "optimizer.lr"),
    ("gaussian", "optimizer.decay.coefficient"),
    ("sgd", "optimizer.lr"),
    ("glyphs", "source.motor"),
    ("noisy", "task.relabel.share"),
]
QUICK = ("task.zipf", "optimizer.decay.coefficient", "source.motor")
"""A field of each part of a spec; the others are tried before a release."""


def first_prompts(spec: Spec) -> list[Prompt]:
    """The first prompts of every member's training stream, drawn as training draws them."""

    def drawn(values: dict[str, Any], bank: Any, key: Any) -> Prompt:
        own = spec.with_values(values)
        assert isinstance(own.task, FewShot)
        index = jnp.arange(64, dtype=jnp.uint32)
        return own.task.sample(key, index, own.source, bank, own.source.sizes().split())

    compiled, engine = jax.jit(drawn), Engine(spec)
    given = [engine.data(m) for m in range(spec.members)]
    return [jax.tree.map(np.asarray, compiled(one.values, one.bank, one.key)) for one in given]


def losses(spec: Spec) -> list[float]:
    """The sum of the training loss over the first five steps of every member."""
    engine = Engine(spec)
    return [float(engine.train(engine.init(m), engine.data(m), jnp.uint32(5)).summed) for m in range(spec.members)]


@pytest.mark.parametrize(
    ("kind", "field"),
    [pytest.param(*case, marks=[] if case[1] in QUICK else pytest.mark.thorough, id="-".join(case)) for case in CASES],
)
def test_a_value_is_the_same_computation_written_plainly_or_varied(kind, field):
    values = VALUES[field]
    seeds = [0.0] * len(values)  # all are member 0, so that they differ in the value alone
    varied = replace(SPECS[kind], members=len(values), vary={field: values, "seeds.member": seeds})
    plain = [replace_at(SPECS[kind], field, value) for value in values]
    varied.check()
    assert [one.addresses()[0] for one in plain] == varied.addresses()
    if field.startswith("optimizer."):
        np.testing.assert_allclose([losses(one)[0] for one in plain], losses(varied), rtol=1e-5)
        return
    for one, theirs in zip(plain, first_prompts(varied), strict=True):
        (ours,) = first_prompts(one)
        for name in ("classes", "indices", "tags", "labels", "target"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
        np.testing.assert_allclose(ours.exemplars, theirs.exemplars, rtol=1e-5, atol=1e-6)


def test_every_traced_field_is_tried():
    assert {field for spec in SPECS.values() for field in traced_fields(spec)} == set(VALUES)
    assert {field for _, field in CASES} == set(VALUES)


def test_distinct_labels_are_kept_where_no_skew_is_one_of_the_varied_values():
    task = replace(TASK, distinct="label")
    (prompt,) = first_prompts(replace(PLAIN, task=task, vary={"task.zipf": [0.0]}))
    rest = prompt.tags[:-1] == Tag.OTHER
    assert rest.sum() > 100 and not (rest & (prompt.labels == prompt.target)).any()
