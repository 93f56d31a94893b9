"""The same models and optimiser written plainly, members batched by `vmap`, in JAX and in PyTorch. Batches are drawn
beforehand and wait on the device: nobody here is charged for sampling."""

from collections.abc import Callable
from typing import Any

import numpy as np

from accelerator_sections import PRECISIONS, Report, precision_of_products, seconds_per_call
from ebbtide.bench.configs import find_config, plain_transformer
from ebbtide.bench.prompts import Batch, HostSampler
from ebbtide.compile import Precision
from ebbtide.training.spec import Spec

POINTS = (("2L-shared", 64), ("2L-shared", 1024), ("2L", 64), ("12L", 16))
"""Configurations and numbers of members."""
WAITING = 4
"""Batches per member that wait on the device."""
WARM_UP = 3
"""Steps before a CUDA graph is captured."""

Step = Callable[[], Any]
Library = tuple[Callable[[Spec, int, Precision], Step], Callable[[Any], Any], str, bool]
"""How to make a step of a spec, so many members and a precision, how to wait for its result, the device, and whether it
is an accelerator."""


def measure_plain(report: Report, library: str) -> None:
    """The rows of one library, jax or torch."""
    make, wait, device, on_gpu = (of_jax if library == "jax" else of_torch)()
    name = {"jax": "plain JAX, members by vmap", "torch": "PyTorch, members by vmap"}[library]
    for config, members in (("2L-shared", 2),) if report.small else POINTS:
        spec = find_config(config).at(find_config(config).batches[0])
        for precision in PRECISIONS if on_gpu else PRECISIONS[:1]:
            about = {"config": config, "members": members, "devices": 1, "precision": precision, "what": name}
            if not report.fits(0 if report.small else 12, **about):
                continue
            try:
                took = seconds_per_call(make(spec, members, precision), report.seconds, wait)
                report.row(**about, value=members * spec.batch / took, unit="sequences/s")
            except Exception as error:  # whatever a library raises at this point is a row; the other points go on
                report.failed(error, **about)
    report.row(what="device of these rows", value=device)


def batches(spec: Spec, members: int) -> list[Batch]:
    """Batches with a leading axis over members."""
    sampler = HostSampler(spec)
    drawn = [[sampler.draw() for _ in range(members)] for _ in range(WAITING)]
    return [Batch(*(np.stack(arrays) for arrays in zip(*one, strict=True))) for one in drawn]


def turns(waiting: list[Any]) -> Callable[[], Any]:
    """A function that gives one of the batches after the other, for ever."""
    at = -1

    def following() -> Any:
        nonlocal at
        at = (at + 1) % len(waiting)
        return waiting[at]

    return following


def of_jax() -> Library:
    """The way of JAX."""
    import jax
    import optax

    from ebbtide.bench.plain_jax import loss, weights

    def make(spec: Spec, members: int, precision: Precision) -> Step:
        jax.config.update("jax_default_matmul_precision", precision_of_products(precision))
        heads, adam = plain_transformer(spec).heads, optax.adam(spec.optimizer.lr)
        stacked = jax.tree.map(lambda x: jax.numpy.repeat(x[None], members, axis=0), weights(spec))
        state = stacked, jax.vmap(adam.init)(stacked)
        following = turns(jax.device_put(batches(spec, members)))

        def one(w: Any, moments: Any, batch: Batch) -> Any:
            grads = jax.grad(loss)(w, batch, heads)
            updates, moments = adam.update(grads, moments, w)
            return optax.apply_updates(w, updates), moments

        program = jax.jit(jax.vmap(one), donate_argnums=(0, 1))

        def step() -> Any:
            nonlocal state
            state = program(*state, following())
            return state

        return step

    return make, jax.block_until_ready, jax.local_devices()[0].device_kind, jax.default_backend() != "cpu"


def of_torch() -> Library:
    """The way of PyTorch: with CUDA a step is one graph."""
    from ebbtide.bench import plain_torch

    torch = plain_torch.load()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    attention, cross_entropy = torch.nn.attention, torch.nn.functional.cross_entropy

    def make(spec: Spec, members: int, precision: Precision) -> Step:
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        model = plain_torch.build(spec).to(device)
        params = {
            name: one.detach()[None].repeat(members, *[1] * one.ndim).clone().requires_grad_()
            for name, one in model.named_parameters()
        }
        fused = {"fused": True, "capturable": True} if on_gpu else {}
        adam = torch.optim.Adam(list(params.values()), lr=spec.optimizer.lr, **fused)
        waiting = [tuple(one.to(device) for one in plain_torch.tensors(batch)) for batch in batches(spec, members)]

        def loss(p: Any, exemplars: Any, labels: Any, target: Any) -> Any:
            return cross_entropy(torch.func.functional_call(model, p, (exemplars, labels)), target)

        gradients = torch.func.vmap(torch.func.grad(loss))

        def train(batch: Any) -> None:
            with attention.sdpa_kernel(attention.SDPBackend.MATH):  # the kernel that vmap can map
                found = gradients({name: one.detach() for name, one in params.items()}, *batch)
            for name, one in params.items():
                one.grad = found[name]
            adam.step()

        if on_gpu:
            return captured(torch, train, waiting)
        following = turns(waiting)
        return lambda: train(following())

    def wait(_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    return make, wait, torch.cuda.get_device_name() if on_gpu else "cpu", on_gpu


def captured(torch: Any, train: Callable[[Any], None], waiting: list[Any]) -> Step:
    """A step as one CUDA graph, into whose batch the next one is copied first."""
    batch, following = tuple(one.clone() for one in waiting[0]), turns(waiting)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            train(batch)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train(batch)

    def step() -> None:
        for to, one in zip(batch, following(), strict=True):
            to.copy_(one)
        graph.replay()

    return step
