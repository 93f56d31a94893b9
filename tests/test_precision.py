"""The precision of matrix products: a field of the spec that reaches the model's products, and nothing else."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.extend.core import Jaxpr
from msgspec.structs import replace

from ebbtide import compile as compiling
from ebbtide.errors import InputError
from ebbtide.sources.functions import Functions
from ebbtide.tasks.regression import Regression
from ebbtide.training.engine import Engine
from ebbtide.training.feasible import check_feasible
from ebbtide.training.programs import Programs
from ebbtide.training.spec import Spec, from_builtins
from tiny import SPEC

FUNCTIONS = replace(SPEC, task=Regression(context=4), source=Functions(dim=3), evaluators=("train",), keep_best=None)
"""A task whose data are products too: a response is the product of weights and inputs."""
NAMES = {"float32": "HIGHEST", "tf32": "TF32", "bf16": "BF16"}


def jaxprs_in(value: Any) -> Iterator[Jaxpr]:
    if isinstance(value, Jaxpr):
        yield value
    elif hasattr(value, "jaxpr"):
        yield from jaxprs_in(value.jaxpr)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from jaxprs_in(one)


def precisions(jaxpr: Jaxpr) -> list[str]:
    """The precision of every product of a program, at any depth."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(str(equation.params["precision"]))
        for value in equation.params.values():
            for inner in jaxprs_in(value):
                found += precisions(inner)
    return found


@pytest.fixture
def accelerator(monkeypatch) -> None:
    """Programs are traced as for an accelerator; they are not run."""
    monkeypatch.setattr(compiling.jax, "default_backend", lambda: "gpu")


def products_of_a_step(spec: Spec) -> list[str]:
    engine, programs = Engine(spec), Programs(spec, False)
    step = lambda state, data: programs.take_steps(state, data, jnp.uint32(1))  # noqa: E731
    return precisions(jax.make_jaxpr(step)(engine.init(0), engine.data(0)).jaxpr)


@pytest.mark.parametrize("precision", NAMES)
def test_every_product_of_the_model_has_the_precision_of_the_spec(precision, accelerator):
    found = products_of_a_step(replace(SPEC, precision=precision))
    assert len(found) > 10 and all(NAMES[precision] in one for one in found), found


def test_data_are_exact_whatever_the_precision_of_the_model(accelerator):
    exact, rough = (products_of_a_step(replace(FUNCTIONS, precision=one)) for one in ("float32", "bf16"))
    assert all("HIGHEST" in one for one in exact)
    kept = [one for one in rough if "HIGHEST" in one]
    assert 0 < len(kept) < len(rough) and all("BF16" in one for one in rough if one not in kept)


@pytest.mark.parametrize("spec", [replace(SPEC, precision="tf32"), FUNCTIONS], ids=["few-shot, tf32", "functions"])
def test_the_programs_of_members_side_by_side_can_be_lowered_for_cuda(spec, accelerator):
    """Nothing in them is of the CPU alone, such as a call that other devices do not have. They are not compiled."""
    engine, members = Engine(spec), [0, 1]
    worlds = engine.worlds.side_by_side(members)
    states, data = engine.init_side_by_side(members), engine.data_side_by_side(members, worlds)
    programs, going = engine.programs, jnp.ones(2, bool)
    train: Any = programs.train_side_by_side(1, worlds.shared)
    measure: Any = programs.measure_side_by_side(2, 1, worlds.shared)
    n = jnp.uint32(3)
    shapes = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), one) for one in (states, data, n, going)]
    text = export.export(train, platforms=["cuda"])(*shapes).mlir_module()
    assert ("algorithm" in text) == (spec.product_precision() == "tf32") and "dot_general" in text
    assert export.export(measure, platforms=["cuda"])(states.params, worlds.prompts).platforms == ("cuda",)


def test_on_a_cpu_programs_are_as_they_were():
    assert set(products_of_a_step(SPEC)) == {"None"}


def test_a_lower_precision_is_refused_on_a_cpu_and_is_another_computation(one_line):
    rough = replace(SPEC, precision="tf32")
    rough.check()
    with pytest.raises(InputError) as caught:
        check_feasible(rough)
    one_line(caught, "precision", "tf32")
    assert rough.digest() != SPEC.digest() and rough.addresses() != SPEC.addresses()


def test_float32_has_one_name_and_is_not_in_the_json():
    explicit = from_builtins(SPEC.builtins() | {"precision": "float32"})
    assert explicit == SPEC and explicit.digest() == SPEC.digest() and b"precision" not in SPEC.to_json()
    assert (
        SPEC.product_precision() == "float32"
        and from_builtins(SPEC.builtins() | {"precision": "bf16"}).product_precision() == "bf16"
    )


def test_an_unknown_precision_is_refused(one_line):
    with pytest.raises(InputError) as caught:
        from_builtins(SPEC.builtins() | {"precision": "fp8"})
    one_line(caught, "precision", "fp8")
