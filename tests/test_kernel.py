"""The compiled kernel: its gradients and steps against XLA's, its bits, its memory, and when it is not used."""

import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide import train
from ebbtide.bench.configs import CONFIGS
from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.kernel import build
from ebbtide.kernel.native import Kernel, register, unsupported_reason
from ebbtide.machine import cores
from ebbtide.mechanisms.interventions import Ablate
from ebbtide.models.deepset import DeepSet
from ebbtide.models.encoders import ResNet
from ebbtide.models.positions import Identical, Learned, LearnedUniform, NoPositions, Rotary, Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.papers.transience.study import QUICK
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.identity import numeric_identity
from ebbtide.sources.chains import Chains
from ebbtide.sources.concepts import Concepts
from ebbtide.sources.functions import Functions
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.cued import Cued
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.prompt import FunctionPrompt, Prompt
from ebbtide.tasks.regression import Regression
from ebbtide.training import kernels
from ebbtide.training.driver import resume
from ebbtide.training.engine import Engine
from ebbtide.training.forgetting import Forgetting
from ebbtide.training.layout import Layout
from ebbtide.training.optimizer import SGD, Adam, WeightDecay
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec
from ebbtide.training.team import Worker
from effort import examples

pytestmark = pytest.mark.usefixtures("quick_compile")

SPEC = Spec(
    task=FewShot(context=2, burst=1, labels=Shared(4)),
    source=Gaussian(classes=40, exemplars=3, dim=6, noise=0.5, holdout_classes=8, holdout_exemplars=1),
    model=Transformer(layers=2, width=16, heads=2),
    optimizer=Adam(lr=1e-2),
    batch=20,
    sequences=20 * 30,
    members=2,
    schedule=Schedule(evaluations=3, checkpoints=3),
    evaluators=("icl",),
    evaluation_sequences=50,
)


@pytest.fixture(scope="module")
def library(built_kernel) -> Path:
    """The library for this machine, known to XLA."""
    register(built_kernel)
    return built_kernel


@pytest.fixture
def native(library: Path, monkeypatch) -> Path:
    """The same, and asked for."""
    monkeypatch.setenv(kernels.VARIABLE, "native")
    return library


def example(model: Transformer, context: int, batch: int, dim: int, labels: int, seed: int):
    """Random parameters of LeCun's size (biases, norms and tables too) and a random prompt, nothing of it compiled."""
    random = np.random.default_rng(seed)
    shape = {"context": context, "dim": dim, "labels": labels}
    made = jax.eval_shape(lambda key: model.init(key, **shape), jax.random.key(0))

    def normal(leaf) -> np.ndarray:
        scale = leaf.shape[0] ** -0.5 if leaf.ndim == 2 else 0.5
        return (scale * random.standard_normal(leaf.shape)).astype(np.float32)

    exemplars = random.standard_normal((context + 1, batch, dim)).astype(np.float32)
    many = max(labels, 1)  # 0: responses are numbers
    said, target = (random.integers(0, many, size).astype(np.int32) for size in ((context, batch), (batch,)))
    zeros = np.zeros((context + 1, batch), np.int32)
    fields = (exemplars, said, target, zeros, zeros.astype(np.uint32), zeros, target)
    return jax.tree.map(jnp.asarray, jax.tree.map(normal, made)), Prompt(*map(jnp.asarray, fields))


def function_example(model: Transformer, context: int, batch: int, dim: int, labels: int, seed: int):
    """The same for a prompt of functions: responses are numbers where there are no labels."""
    params, prompt = example(model, context, batch, dim, labels, seed)
    random = np.random.default_rng(seed + 1)
    size = (context + 1, batch)
    said = random.integers(0, labels, size) if labels else random.standard_normal(size)
    responses = jnp.asarray(said, jnp.int32 if labels else jnp.float32)
    there = np.arange(context)[:, None] < random.integers(1, context + 1, batch)
    return params, FunctionPrompt(prompt.exemplars, responses, jnp.asarray(there), {})


def distance(found, exact) -> float:
    """The largest, over arrays, of |a - b| / |b|; an array far smaller than the whole gradient is held to a millionth
    of that."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True))
    whole = sum(float(np.square(np.asarray(b, np.float64)).sum()) for _, b in pairs) ** 0.5

    def one(a, b) -> float:
        b = np.asarray(b, np.float64)
        return float(np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), 1e-6 * whole))

    return max(one(a, b) for a, b in pairs)


TOKENS: list[dict[str, Any]] = [
    {"pairing": "interleaved"},
    {"pairing": "interleaved", "positions": Identical(kinds="token")},
    {"pairing": "joint"},
    {"pairing": "joint", "mask": "none"},
    {"pairing": "copied"},
    {"pairing": "copied", "positions": Identical(kinds="token")},
]


@st.composite
def models(draw, kinds: list[dict[str, Any]] = TOKENS) -> Transformer:
    """Any transformer that is served."""
    tokens = draw(st.sampled_from(kinds))
    learned = (Learned(), Learned(spare=3), LearnedUniform(spare=3))
    positions = st.sampled_from([*learned, Sinusoidal(), Rotary(), NoPositions(), Identical()])
    heads, size = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    return Transformer(
        layers=draw(st.integers(1, 2)),
        width=8 * heads * size,
        heads=heads,
        mlp_ratio=draw(st.integers(0, 3)),
        norm=draw(st.sampled_from(["pre", "none"])),
        attention=draw(st.sampled_from(["softmax", "relu"])),
        activation=draw(st.sampled_from(["gelu", "relu"])),
        **({"positions": draw(positions)} | tokens),
    )


@settings(max_examples=examples(quick=4, thorough=24), derandomize=True)
@given(
    model=models(),
    context=st.integers(1, 6),
    batch=st.integers(1, 40),
    dim=st.integers(1, 20),
    labels=st.integers(2, 300),
    seed=st.integers(0, 99),
)
def test_gradients_of_any_shape_are_those_of_float64(library, model, context, batch, dim, labels, seed):
    params, prompt = example(model, context, batch, dim, labels, seed)
    hold_to_float64(model, params, prompt, {"context": context, "dim": dim, "labels": labels})


@settings(max_examples=examples(quick=4, thorough=28), derandomize=True)
@given(
    model=models(),
    context=st.integers(1, 6),
    batch=st.integers(1, 40),
    dim=st.integers(1, 20),
    labels=st.sampled_from([0, 2, 300]),
    seed=st.integers(0, 99),
)
def test_gradients_of_functions_are_those_of_float64(library, model, context, batch, dim, labels, seed):
    """Every input is answered, over joint tokens the query: a number (0 labels), or one of the labels. Without a mask
    prompts have fewer pairs than there is room for."""
    params, prompt = function_example(model, context, batch, dim, labels, seed)
    hold_to_float64(model, params, prompt, {"context": context, "dim": dim, "labels": labels})


@settings(max_examples=examples(quick=3, thorough=20), derandomize=True)
@given(
    model=models([{"pairing": "states"}]),
    context=st.integers(1, 6),
    batch=st.integers(4, 40),
    dim=st.integers(1, 20),
    labels=st.sampled_from([0, 2, 300]),
    seed=st.integers(0, 99),
)
def test_gradients_of_streams_are_those_of_float64(library, model, context, batch, dim, labels, seed):
    """Every state is answered with the next: as many numbers (0 labels), or a label. Some sequences at least: of one
    with two tokens k's gradient is a difference of near equals."""
    params, prompt = example(model, context, batch, dim, labels, seed)
    random = np.random.default_rng(seed + 1)
    size = (context + 1, batch) if labels else (context + 1, batch, dim)
    said = random.integers(0, labels, size) if labels else random.standard_normal(size)
    responses = jnp.asarray(said, jnp.int32 if labels else jnp.float32)
    states = FunctionPrompt(prompt.exemplars, responses, jnp.ones((context, batch), bool), {})
    hold_to_float64(model, params, states, {"context": context, "dim": dim, "labels": labels})


def hold_to_float64(model: Transformer, params: Any, prompt: Any, shape: dict[str, int]) -> None:
    """Loss and gradients of the kernel are those of the model in float64, as near as float32 allows."""
    loss, grads = jax.jit(Kernel(model, **shape).loss_and_grad)(params, prompt)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)) if x.dtype == jnp.float32 else x, prompt)
        exact, slopes = compile_fast(model.loss_and_grad)(double, wide)
    assert float(loss) == pytest.approx(float(exact), rel=1e-6, abs=2e-7)  # a small loss is a difference of logits
    if (off := distance(grads, slopes)) >= 1e-5:  # terms that cancel cost float32 digits, and then XLA as well
        with jax.default_matmul_precision("highest"):
            _, theirs = compile_fast(model.loss_and_grad)(params, prompt)
        assert off < 2 * distance(theirs, slopes)


@pytest.mark.parametrize(
    ("model", "shape", "batch"),
    [
        (QUICK.model, {"context": 2, "dim": 24, "labels": 4}, 16),
        (Transformer(layers=2, width=64, heads=8, mlp_ratio=0), {"context": 2, "dim": 64, "labels": 12_930}, 32),
        (Transformer(layers=2, width=64, heads=8), {"context": 8, "dim": 32, "labels": 1600}, 1),
        (Transformer(layers=2, width=64, heads=2), {"context": 8, "dim": 9, "labels": 33}, 300),
    ],
    ids=["quick", "2L", "one sequence", "several groups of blocks"],
)
def test_gradients_are_xlas(library, model, shape, batch):
    params, prompt = example(model, shape["context"], batch, shape["dim"], shape["labels"], 0)
    call = jax.jit(Kernel(model, **shape).loss_and_grad)
    loss, grads = call(params, prompt)
    with jax.default_matmul_precision("highest"):
        theirs, slopes = jax.jit(model.loss_and_grad)(params, prompt)
    assert float(loss) == pytest.approx(float(theirs), rel=1e-6)
    assert distance(grads, slopes) < 1e-5
    again = call(params, prompt)
    for a, b in zip(jax.tree.leaves((loss, grads)), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_wrong_gradient_would_be_seen(library):
    params, prompt = example(Transformer(layers=1, width=8, heads=1), 2, 5, 3, 4, 0)
    _, grads = Kernel(Transformer(layers=1, width=8, heads=1), context=2, dim=3, labels=4).loss_and_grad(params, prompt)
    wrong = jax.tree.map(lambda x: x, grads)
    wrong["blocks"][0]["attn"]["k"] = 1.0001 * wrong["blocks"][0]["attn"]["k"]
    assert distance(wrong, grads) > 5e-5


def trained(spec: Spec, native: bool, steps: int = 12):
    """The state after so many steps of member 0."""
    engine = Engine(spec, native)
    return engine.train(engine.init(0), engine.data(0), jnp.uint32(steps))


OF_FUNCTIONS = {"evaluators": ("train",), "keep_best": None, "optimizer": Adam(lr=1e-2)}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": Adam(lr=1e-2, b1=0.8, schedule=Cosine(warmup=3), decay=WeightDecay(coefficient=1e-2))},
        {
            "optimizer": Adam(lr=1e-2, decay=WeightDecay(form="decoupled", coefficient=0.3, on="attention")),
            "task": FewShot(context=2, burst=1),
            "source": replace(SPEC.source, classes=700),
            "batch": 700,
        },
        pytest.param(
            {"optimizer": Adam(lr=1e-2, decay=WeightDecay(form="norms", coefficient=1e-2))},
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"optimizer": Adam(lr=1e-2, decay=WeightDecay(form="norms_qkv", coefficient=1e-2))},
            marks=pytest.mark.thorough,
        ),
        {"optimizer": SGD(lr=0.1, momentum=0.9), "freeze": ("blocks.0.*",)},
        pytest.param(
            {"source": Functions(dim=3, layers=1), "task": Regression(context=4)} | OF_FUNCTIONS,
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"source": Concepts(concepts=4), "task": Cued(context=4), "batch": 700} | OF_FUNCTIONS,
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {
                "source": Functions(dim=3, layers=1),
                "task": Regression(context=4, lengths="random"),
                "model": replace(SPEC.model, pairing="joint", mask="none", attention="relu", positions=Identical()),
            }
            | OF_FUNCTIONS,
            marks=pytest.mark.thorough,
        ),
        {
            "source": Functions(dim=3, layers=1, history=2),
            "task": Dynamics(context=5),
            "model": replace(SPEC.model, pairing="states"),
            "batch": 700,
        }
        | OF_FUNCTIONS,
        {
            "source": Chains(states=3, pool=5),
            "task": Markov(context=5),
            "model": replace(SPEC.model, pairing="states"),
            "batch": 700,
        }
        | OF_FUNCTIONS,
        {"model": replace(SPEC.model, pairing="copied"), "forgetting": Forgetting(every=20 * 20, moments=False)},
    ],
    ids=[
        "l2",
        "decoupled, several groups",
        "norms",
        "one norm of queries, keys and values",
        "sgd and frozen",
        "numbers",
        "labels of cues",
        "the query's number",
        "states",
        "symbols",
        "copied, and forgetting",
    ],
)
def test_steps_are_xlas(library, changes):
    spec = replace(SPEC, **{"sequences": 30 * changes.get("batch", 20)} | changes)
    ours, theirs = trained(spec, True), trained(spec, False)
    assert float(ours.summed) == pytest.approx(float(theirs.summed), rel=1e-5)
    assert distance(ours.params, theirs.params) < 4e-5  # rounding grows: Adam divides small gradients by themselves
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    fresh = Engine(spec).init(0)
    assert distance(ours.params, fresh.params) > 0.01, "training moved the parameters"


def test_labels_out_of_range_are_refused_not_read(library):
    model = Transformer(layers=1, width=8, heads=1)
    params, prompt = example(model, 2, 5, 3, 4, 0)
    kernel = Kernel(model, context=2, dim=3, labels=4)
    for wrong in (prompt._replace(labels=prompt.labels + 9), prompt._replace(target=prompt.target - 9)):
        with pytest.raises(Exception, match="out of range"):
            jax.block_until_ready(kernel.loss_and_grad(params, wrong))


def repeatable(run: RunFolder) -> bool:
    """What its newest checkpoint says of its bits."""
    newest = run.latest()
    assert newest is not None
    return newest[1].repeatable


def test_a_run_says_what_trained_it_and_repeats_and_resumes_bit_for_bit(native, tmp_path):
    whole, again = (train(SPEC, tmp_path / str(n), processes=n) for n in (1, 2))
    assert whole.header.identity["kernel"].startswith("native ") and repeatable(whole)
    kept = again.metrics()
    for path in sorted((again.path / "checkpoints").iterdir())[1:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    resumed = resume(RunFolder(again.path), processes=1)
    for name, values in whole.metrics().items():
        np.testing.assert_array_equal(values, kept[name])
        np.testing.assert_array_equal(values, resumed.metrics()[name])
    assert repeatable(resumed)


def test_what_is_long_enough_to_measure_is_trained_one_member_at_a_time(native, tmp_path, monkeypatch):
    """A layout found for XLA's programs must not take the kernel away."""
    seen = []

    class Seen(Exception):
        pass

    def team(members: int, layout: Layout, worker: Worker | None, kernel: kernels.Choice, stop: object) -> None:
        seen.append((layout.width, layout.processes, kernel.library))
        raise Seen

    monkeypatch.setattr("ebbtide.training.layout.MEASURE_FROM_SECONDS", 0.0)
    monkeypatch.setattr("ebbtide.training.driver.Team", team)
    with pytest.raises(Seen):
        train(SPEC, tmp_path / "run")
    assert seen == [(1, min(2, cores()), native)]
    with pytest.raises(InputError, match=r"kernel = 'native': cannot be used here: members are trained side by side"):
        train(SPEC, tmp_path / "run", width=2)
    monkeypatch.setenv(kernels.VARIABLE, "auto")
    said = []
    with pytest.raises(Seen):
        train(SPEC, tmp_path / "run", width=2, say=said.append)
    assert seen[-1] == (2, 1, None) and len(said) == 1 and "side by side" in said[0]


@pytest.mark.thorough
def test_a_run_goes_on_by_what_it_was_begun_with(library, tmp_path, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, "xla")
    run = train(replace(SPEC, sequences=200), tmp_path / "run", processes=1)
    assert run.header.identity["kernel"] == "xla"
    monkeypatch.setenv(kernels.VARIABLE, "auto")
    assert kernels.choose(SPEC, before="xla") == kernels.XLA
    assert kernels.choose(SPEC).library == library and kernels.choose(SPEC, before="native 0").library == library
    assert numeric_identity({"jax": "1"}) == {"jax": "1", "kernel": "xla"}, (
        "a run from before there was a kernel is XLA's"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": Transformer(width=20, heads=2)}, "multiples of 8"),
        ({"model": Transformer(width=24, heads=2)}, "multiples of 8"),
        ({"model": Transformer(encoder=ResNet())}, "linear encoder"),
        ({"model": Transformer(attention_bias=True)}, "biases"),
        ({"model": Transformer(attention="linear")}, "linear attention"),
        ({"model": Transformer(norm="post")}, "norm after"),
        ({"model": DeepSet(), "task": Regression(), "source": Functions(), "evaluators": ("train",)}, "transformers"),
        (
            {"model": Transformer(pairing="states"), "task": Dynamics(), "source": Functions(dim=257)},
            "states of more than 256 numbers",
        ),
        ({"interventions": (Ablate(at="blocks.0.attn.hook_z", heads=(1,)),)}, "interventions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_served_is_trained_by_xla_with_one_note(monkeypatch, changes, reason):
    spec, said = replace(SPEC, **changes), []
    monkeypatch.setenv(kernels.VARIABLE, "auto")
    assert kernels.choose(spec, say=said.append) == kernels.XLA
    assert len(said) == 1 and reason in said[0]
    monkeypatch.setenv(kernels.VARIABLE, "native")
    with pytest.raises(InputError, match=f"kernel = 'native': cannot be used here: .*{reason}"):
        kernels.choose(spec)
    assert unsupported_reason(Transformer(), {"context": 2, "dim": 8, "labels": 16_385}) is not None


@pytest.mark.parametrize("config", CONFIGS.values(), ids=lambda one: one.name)
def test_every_configuration_of_the_benchmark_is_served(config):
    assert kernels.unsupported_reason(config.spec) is None


@pytest.mark.parametrize(("compiler", "reason"), [("no-such-compiler", "is on the path"), ("false", "false failed")])
def test_without_a_compiler_that_works_xla_trains_with_one_note(tmp_path, monkeypatch, compiler, reason):
    said = []
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(kernels.VARIABLE, "auto")
    run = train(replace(SPEC, sequences=60), tmp_path / "run", processes=0, say=said.append)
    notes = [line for line in said if line.startswith("note")]
    assert len(notes) == 1 and reason in notes[0]
    assert run.header.identity["kernel"] == "xla" and run.status() == "complete"
    assert not list(tmp_path.glob("ebbtide/kernel/*")), "nothing is left of a build that failed"
    monkeypatch.setenv(kernels.VARIABLE, "native")
    with pytest.raises(InputError, match="cannot be used here"):
        train(SPEC, tmp_path / "other", processes=0)
    assert not (tmp_path / "other").exists()


def test_the_name_of_the_library_is_made_of_what_its_bits_depend_on(monkeypatch, tmp_path):
    here = build.Compiler(("c++",), "c++ 12")
    assert build.key(here) == build.key(here)
    monkeypatch.setattr(build, "processor", lambda: "another")
    assert build.key(here) != (another := build.key(build.Compiler(("c++",), "c++ 13")))
    for name in build.SOURCES:
        (tmp_path / name).write_bytes((build.HERE / name).read_bytes())
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build.key(build.Compiler(("c++",), "c++ 13")) == another
    (tmp_path / "model.h").write_text("// changed")
    assert build.key(build.Compiler(("c++",), "c++ 13")) != another


def test_an_unknown_kernel_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(kernels.VARIABLE, "nativ")
    with pytest.raises(
        InputError, match=r"kernel = 'nativ': must be one of auto, xla, native \(did you mean 'native'\?\)"
    ):
        train(SPEC, tmp_path / "run", processes=0)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def checked(library, tmp_path_factory):
    """Builds kernel_check.cpp with flags and returns its lines of numbers."""
    folder = tmp_path_factory.mktemp("kernel")

    def run(*flags: str) -> np.ndarray:
        program = folder / f"check{len(list(folder.iterdir()))}"
        command = [*build.find_compiler().words, *build.FLAGS[:4], *flags, "-I", str(build.HERE), "-pthread"]
        command += ["-o", str(program), str(Path(__file__).parent / "kernel_check.cpp")]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0 and "sanitize" in "".join(flags):
            pytest.skip(f"no sanitizers here: {made.stderr[-200:]}")
        assert made.returncode == 0, made.stderr[-2000:]
        said = subprocess.run([str(program)], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr[-2000:]
        return np.asarray([[float(x) for x in line.split()] for line in said.stdout.splitlines()])

    return run


@pytest.mark.thorough
def test_address_and_undefined_behaviour_sanitizers_find_nothing(checked):
    found = checked("-march=native", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    assert found.shape == (18, 3) and np.isfinite(found).all()


def widths() -> list[tuple[str, ...]]:
    """Flags for vectors as wide as this processor's, for the narrowest, and on x86 for those between, where it has
    them."""
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return [("-march=native",), (), *([("-march=x86-64-v3",)] if " avx2 " in said and " fma " in said else [])]


@pytest.mark.thorough
def test_every_width_of_vectors_computes_the_same(checked):
    here, *others = (checked(*flags) for flags in widths())
    for other in others:
        np.testing.assert_allclose(here[:, :2], other[:, :2], rtol=1e-5)
        off = np.abs(here[:, 2] - other[:, 2])  # a weighed sum of all gradients: its terms cancel
        assert (off <= 1e-5 * here[:, 1]).all()
    assert (np.delete(here, 7, axis=0)[:, 1] > 0.1).all() and here[7, 1] == 0, "one label: nothing to learn"
