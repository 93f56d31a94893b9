"""What several test modules share: a small source, drawn prompts as NumPy arrays, real data if there is any."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from jax._src import compiler
from jax._src.interpreters import mlir

import checked_calls  # before ebbtide is imported
import compiled
from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.sources import gaussian
from ebbtide.sources.bank import Bank
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.prompt import Prompt

os.environ["EBBTIDE_KERNEL"] = "xla"  # the compiled kernel has tests of its own
# For the processes of `pytest -n` and all that they start: where two processes share two cores, threads of linear
# algebra wait for each other by spinning, which takes longer than the tiny matrices do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
compiled.begin()  # before anything is compiled
settings.register_profile("ebbtide", deadline=None)  # no test asserts wall-clock time, on a busy machine either
settings.load_profile("ebbtide")

SMALL = Gaussian(classes=12, exemplars=5, dim=4, holdout_classes=6, holdout_exemplars=3)

Draw = Callable[..., Prompt]

SMALL_PROGRAM: dict[str, bool | int] = {"xla_cpu_parallel_codegen_split_count": 1} | (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
)
"""Compiler options for small programs: a program is one module, not several for several threads, and XLA's fusion
emitters, which take half of the time, are off. From jax 0.11 on XLA cannot do without these."""
QUICK_COMPILE: dict[str, bool | int] = {"xla_backend_optimization_level": 0, **SMALL_PROGRAM}
"""Compiler options for the many small programs that run once."""

as_in_children = False
"""Whether what is compiled quickly is compiled without `SMALL_PROGRAM`, as in the processes that tests start."""

_options_of_jax = compiler.get_compile_options


def _compile_options(*args: Any, **options: Any) -> Any:
    """JAX's compiler options; where it shall not optimise, with those for small programs."""
    chosen = _options_of_jax(*args, **options)
    if jax.config.values["jax_disable_most_optimizations"] and not as_in_children:
        chosen.env_option_overrides = [*chosen.env_option_overrides, *SMALL_PROGRAM.items()]
    return chosen


compiler.get_compile_options = _compile_options
mlir.make_ir_context = lru_cache(mlir.make_ir_context)
"""One context for all programs: to make one takes JAX longer than to translate a small program."""


def forget_banks() -> None:
    """Makes the process compile the program that draws Gaussian banks anew, with the options of the module."""
    program: Any = gaussian._build
    program.clear_cache()


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """The same for a whole module, with `pytestmark = pytest.mark.usefixtures("quick_compile")`."""
    jax.config.update("jax_disable_most_optimizations", True)
    forget_banks()
    yield
    forget_banks()
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def quick_compile_everywhere(quick_compile: None) -> Iterator[None]:
    """The same in the processes that the tests of a module start, to the bit: without the options for small
    programs, which cannot be chosen there."""
    global as_in_children
    before, as_in_children = as_in_children, True
    jax.clear_caches()  # what another module has compiled otherwise would be taken
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    yield
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    jax.clear_caches()
    as_in_children = before


LONGEST = (
    "style",
    "dashboard_browser",
    "function_studies",
    "notebooks",
    "follow",
    "measures",
    "kernel",
    "dashboard_prompts",
    "hosts",
    "representations",
    "accelerator_script",
    "member_independence",
    "regression",
    "deepset",
    "start",
    "driver",
    "stopping",
    "toy_laws",
    "deterministic",
    "encoders",
    "oracles",
    "positions_study",
    "claims_can_fail",
    "members",
    "statisticians",
    "sharding",
    "sweep_faults",
)
"""The files that take longest: they begin first, so that none of them is left at the end for one process alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """What has been imported stays: the garbage collector need not look at it again and again."""
    compiled.imported()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test of a file: what its tests compiled is for the other processes, and theirs for the next file;
    calls are counted anew."""
    if nextitem is None or nextitem.path != item.path:
        compiled.exchange()
        checked_calls.calls.clear()


@lru_cache
def _bank(source: Gaussian) -> Bank:
    return jax.jit(source.build, compiler_options=QUICK_COMPILE)()


@lru_cache
def _sampler(task: FewShot, source: Gaussian, holdout_classes: bool, holdout_exemplars: bool):
    bank = _bank(source)
    split = source.sizes().split(holdout_classes=holdout_classes, holdout_exemplars=holdout_exemplars)
    return jax.jit(lambda key, index: task.sample(key, index, source, bank, split), compiler_options=QUICK_COMPILE)


@pytest.fixture(scope="session")
def source() -> Gaussian:
    """Twelve training classes and six held out: so few that chance coincidences do occur."""
    return SMALL


@pytest.fixture(scope="session")
def bank() -> Bank:
    return _bank(SMALL)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """draw(task, source, sequences, seed, start, holdout_classes, holdout_exemplars): a checked, compiled
    sample of a task as NumPy arrays."""

    def draw(
        task: FewShot,
        source: Gaussian = SMALL,
        sequences: int = 400,
        seed: int = 0,
        start: int = 0,
        holdout_classes: bool = False,
        holdout_exemplars: bool = False,
    ) -> Prompt:
        task.check(source)
        index = start + jnp.arange(sequences, dtype=jnp.uint32)
        sample = _sampler(task, source, holdout_classes, holdout_exemplars)
        return jax.tree.map(np.asarray, sample(root(seed, Purpose.DATA), index))

    return draw


@pytest.fixture(scope="session")
def one_line() -> Callable[[pytest.ExceptionInfo[InputError], str, Any], None]:
    """Checks the promise of `InputError`: one line that names the field, the value and what is allowed."""

    def check(caught: pytest.ExceptionInfo[InputError], field: str, value: Any) -> None:
        error, text = caught.value, str(caught.value)
        assert len(text.splitlines()) == 1
        assert error.field == field
        assert text.startswith(f"{field} = {value!r}: ")
        assert len(error.allowed) > 5

    return check


@pytest.fixture(scope="session")
def built_kernel() -> Path:
    """The compiled kernel of this machine, built unless it is there."""
    from ebbtide.kernel import build

    try:
        return build.ready()
    except build.BuildError as error:
        pytest.skip(f"the compiled kernel cannot be built here: {error}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data files; tests that need it skip without it."""
    folder = Path(os.environ.get("EBBTIDE_DATA") or Path(__file__).parents[1] / "../shared/data")
    if not (folder / "omniglot_features_pca64.npz").is_file():
        pytest.skip(
            "no Omniglot features: set EBBTIDE_DATA to a folder with omniglot_features_pca64.npz (README: Data)"
        )
    return folder.resolve()
