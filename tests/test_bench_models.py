"""What the benchmark counts and compares: operations, bytes, and plain models that are the same model."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.bench import plain_jax, plain_torch, work
from ebbtide.bench.configs import plain_transformer
from ebbtide.bench.prompts import Batch, HostSampler
from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.models.deepset import DeepSet
from ebbtide.models.encoders import ResNet
from ebbtide.models.positions import Rotary
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.tasks.prompt import Prompt
from ebbtide.training.spec import Spec
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")

DEEP = replace(SPEC, task=FewShot(context=4, burst=2), model=Transformer(layers=3, width=16, heads=4, mlp_ratio=3))
BARE = replace(SPEC, task=FewShot(labels=Shared(4)), model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0))
SPECS = {"one layer": SPEC, "three layers": DEEP, "attention only": BARE}


class Case(NamedTuple):
    """A spec with untrained weights, moved away from their zeros and ones, and one batch."""

    spec: Spec
    params: Any
    prompt: Prompt


@pytest.fixture(scope="module", params=SPECS)
def case(request: pytest.FixtureRequest) -> Case:
    spec = SPECS[request.param]
    sizes, source = spec.source.sizes(), spec.source
    outputs = spec.outputs()

    def made() -> tuple[Any, Prompt]:
        params = spec.model.init(root(0, Purpose.INIT), context=spec.task.context, dim=sizes.dim, labels=outputs)
        index = jnp.arange(spec.batch, dtype=jnp.uint32)
        return params, spec.task.sample(root(0, Purpose.DATA), index, source, source.build(), sizes.split())  # pyright: ignore

    params, prompt = compile_fast(made)()
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape).astype(np.float32), params)
    return Case(spec, params, prompt)


# --- operations and bytes


def dots(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every dot_general below a jaxpr, and how often it is done."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation, times
        rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from dots(inner, times * rounds)


def counted(function: Any, *arguments: Any) -> int:
    """Operations of all matrix products of a function: two for each multiply-add."""
    total = 0
    for equation, times in dots(jax.make_jaxpr(function)(*arguments).jaxpr):
        (contracted, _), _ = equation.params["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        total += 2 * times * inner * math.prod(equation.outvars[0].aval.shape)
    return total


def test_the_count_of_a_program_sees_products_in_inner_programs():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert counted(lambda x, y: x @ y, a, b) == 2 * 3 * 4 * 5
    assert counted(jax.jit(jax.value_and_grad(lambda x, y: (x @ y).sum())), a, b) == 2 * 2 * 3 * 4 * 5
    square = jnp.ones((3, 3))
    assert counted(lambda x: jax.lax.scan(lambda s, _: (s @ x, s), x, length=7), square) == 7 * 2 * 3**3


def test_operations_are_those_of_the_program(case):
    assert work.flops(case.spec) == counted(case.spec.model.loss_and_grad, case.params, case.prompt)


OTHERS = {
    "joint pairs": Transformer(layers=2, width=16, heads=2, pairing="joint"),
    "lstm": Recurrent("lstm", layers=2, width=16),
    "rnn": Recurrent("rnn", layers=3, width=8),
    "deepset": DeepSet(layers=3, width=16),
    "one layer": DeepSet(layers=1, width=8, pool="sum"),
}


@pytest.mark.parametrize("model", OTHERS)
def test_operations_of_other_models_are_those_of_their_programs(model):
    spec = replace(DEEP, model=OTHERS[model])
    params = jax.eval_shape(lambda: spec.model.init(root(0, Purpose.INIT), **spec.shape()))
    source, index = spec.source, jnp.arange(spec.batch, dtype=jnp.uint32)

    def prompt() -> Prompt:
        return spec.task.sample(root(0, Purpose.DATA), index, source, source.build(), source.sizes().split())  # pyright: ignore

    assert work.flops(spec) == counted(spec.model.loss_and_grad, params, jax.eval_shape(prompt))
    assert spec.parameters() == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "model",
    [
        Recurrent(),
        Transformer(pairing="joint"),
        Transformer(positions=Rotary()),
        Transformer(encoder=ResNet()),
    ],
)
def test_a_model_that_the_plain_ones_are_not_is_not_compared_with_them(model):
    with pytest.raises(InputError, match="must be a transformer of interleaved tokens"):
        plain_transformer(replace(SPEC, model=model))


def test_computing_the_whole_sequence_takes_more_operations():
    """The count is of the least work: the plain model, which does the last layer for every token, does more."""
    batch = HostSampler(DEEP).draw()
    grad = jax.grad(plain_jax.loss)
    assert counted(lambda w: grad(w, batch, 4), plain_jax.weights(DEEP)) > 1.2 * work.flops(DEEP)


def test_traffic_is_parameters_and_moments_read_and_written(case):
    state = [case.params, case.spec.optimizer.init(case.params)]
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]  # without the step count
    assert work.traffic(case.spec) == 2 * sum(leaf.nbytes for leaf in arrays)


def test_the_roofline_is_the_slower_of_computing_and_moving():
    operations, moved = work.flops(SPEC), work.traffic(SPEC)
    assert work.Ceiling(operations / 2, moved).seconds(SPEC) == pytest.approx(2)
    assert work.Ceiling(operations, moved / 3).seconds(SPEC) == pytest.approx(3)
    half = work.Ceiling(operations, moved).fraction(SPEC, SPEC.batch / 2)
    assert half == pytest.approx(0.5)
    assert work.Ceiling(operations, moved).fraction(SPEC, SPEC.batch, processes=2) == pytest.approx(half)


# --- the plain implementations


def batch_of(prompt: Prompt) -> Batch:
    exemplars = np.asarray(prompt.exemplars).transpose(1, 0, 2)
    return Batch(exemplars, np.asarray(prompt.labels).T.astype(np.int64), np.asarray(prompt.target).astype(np.int64))


def plain_weights(params: Any) -> plain_jax.Weights:
    """Our weights in the plain JAX model: matrices [out, in], one dictionary for each layer."""

    def linear(w: Any, b: Any = None) -> Any:
        return {"w": w.T} | ({} if b is None else {"b": b})

    def block(one: Any) -> Any:
        made = {"norm1": one["norm1"]} | {n: linear(one["attn"][n], one["attn"].get(f"{n}_b")) for n in "qkvo"}
        if "mlp" in one:
            mlp = one["mlp"]
            made |= {"norm2": one["norm2"], "w_in": linear(mlp["w_in"], mlp["b_in"])}
            made |= {"w_out": linear(mlp["w_out"], mlp["b_out"])}
        return made

    return {
        "exemplar": linear(params["exemplar"]["w"], params["exemplar"]["b"]),
        "label": params["label"]["table"],
        "position": params["position"]["table"],
        "blocks": [block(one) for one in params["blocks"]],
        "norm": params["norm"],
        "readout": linear(params["readout"]["w"], params["readout"]["b"]),
    }


def our_loss(case: Case) -> float:
    return float(jax.jit(case.spec.model.loss)(case.params, case.prompt))


def test_plain_jax_has_our_loss(case):
    heads, weights, batch = plain_transformer(case.spec).heads, plain_weights(case.params), batch_of(case.prompt)
    plain = jax.jit(plain_jax.loss, static_argnums=2)(weights, batch, heads)
    assert float(plain) == pytest.approx(our_loss(case), abs=1e-5)


def fill(model: Any, w: plain_jax.Weights) -> None:
    """The weights of the plain JAX model in the PyTorch model."""
    torch = plain_torch.load()

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.array(array))

    state = {"label.weight": w["label"], "position": w["position"]}
    for name, target in (("exemplar", "exemplar"), ("readout", "readout")):
        state |= {f"{target}.weight": w[name]["w"], f"{target}.bias": w[name]["b"]}
    norms = {"norm": w["norm"]}
    for i, block in enumerate(w["blocks"]):
        at = f"blocks.{i}"
        norms[f"{at}.norm1"] = block["norm1"]
        state[f"{at}.qkv.weight"] = jnp.concatenate([block[n]["w"] for n in "qkv"])
        state[f"{at}.o.weight"] = block["o"]["w"]
        if "w_in" in block:
            norms[f"{at}.mlp.0"] = block["norm2"]
            state |= {f"{at}.mlp.1.weight": block["w_in"]["w"], f"{at}.mlp.1.bias": block["w_in"]["b"]}
            state |= {f"{at}.mlp.3.weight": block["w_out"]["w"], f"{at}.mlp.3.bias": block["w_out"]["b"]}
    for name, norm in norms.items():
        state |= {f"{name}.weight": norm["scale"], f"{name}.bias": norm["offset"]}
    model.load_state_dict({name: tensor(array) for name, array in state.items()}, strict=True)


def test_plain_torch_has_our_loss(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = plain_torch.build(case.spec)
    fill(model, plain_weights(case.params))
    exemplars, labels, target = plain_torch.tensors(batch_of(case.prompt))
    loss = torch.nn.functional.cross_entropy(model(exemplars, labels), target)
    assert loss.item() == pytest.approx(our_loss(case), abs=1e-5)


def test_without_pytorch_it_says_so(monkeypatch):
    monkeypatch.setattr(plain_torch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="PyTorch is not installed"):
        plain_torch.load()


def test_the_plain_loops_learn():
    """Both optimisers are connected: the loss of a small task falls."""
    spec = replace(BARE, optimizer=replace(BARE.optimizer, lr=1e-2))
    batch = HostSampler(spec, seed=1).draw()
    trained = plain_jax.PlainJax(spec)
    before = float(plain_jax.loss(trained.weights, batch, plain_transformer(spec).heads))
    trained.train(30)
    assert float(plain_jax.loss(trained.weights, batch, plain_transformer(spec).heads)) < 0.9 * before
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    eager = plain_torch.PlainTorch(spec, 1, compiled=False)
    exemplars, labels, target = plain_torch.tensors(batch)
    losses = [torch.nn.functional.cross_entropy(eager.model(exemplars, labels), target).item()]
    eager.train(30)
    eager.choose()
    assert "Adam: " in eager.note
    losses.append(torch.nn.functional.cross_entropy(eager.model(exemplars, labels), target).item())
    assert losses[1] < 0.9 * losses[0]


def test_the_host_draws_the_same_kind_of_sequence():
    spec = replace(SPEC, task=FewShot(context=8, burst=3), batch=4000)
    batch = HostSampler(spec).draw()
    assert batch.exemplars.shape == (4000, 9, 8) and batch.labels.shape == (4000, 8)
    same = batch.labels == batch.target[:, None]
    index = jnp.arange(4000, dtype=jnp.uint32)
    source, key = spec.source, root(0, Purpose.DATA)
    ours = compile_fast(lambda: spec.task.sample(key, index, source, source.build(), source.sizes().split()))()  # pyright: ignore
    matches = np.asarray(ours.labels == ours.target).T  # pyright: ignore
    for found in (same, matches):
        assert found.sum(1).min() == 3 and found.sum(1).mean() == pytest.approx(3 + 2 / 64, abs=0.02)
        assert np.allclose(found.mean(0), found.mean(), atol=0.03)  # every slot alike: the order is random
    runner_up = [sorted(np.bincount(row))[-2] for row in batch.labels]
    assert min(runner_up) == 3  # the distractor's copies
    shared = HostSampler(BARE).draw()
    assert shared.labels.max() == shared.target.max() == 3
