"""One benchmark: for every configuration the machine's ceiling, all implementations in turn, the grid of layouts, whole
runs."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ebbtide.bench import machine, plain_torch, whole
from ebbtide.bench.child import BY_XLA
from ebbtide.bench.configs import Config, plain_transformer
from ebbtide.bench.records import Benchmark, Row, Skipped, Target
from ebbtide.bench.rounds import Child, ChildError, Pace, take_turns
from ebbtide.bench.work import Ceiling, flops
from ebbtide.training.spec import Spec

PATIENCE = 1200.0
"""Longest time for a start, in seconds (plain JAX and compiled PyTorch need minutes for twelve layers)."""
STATE_BYTES = 12
"""Bytes per parameter of the optimiser's working set: parameter and two moments."""

Say = Callable[[str], None]


class Effort(NamedTuple):
    """Seconds of each measurement: an implementation in each of the `rounds`, a whole run, one matrix product per
    library, and everything about a configuration (no measurement starts that would not fit)."""

    rounds: int
    turn: float
    run: float
    product: float
    budget: float


FULL = Effort(rounds=5, turn=1.0, run=15.0, product=0.25, budget=float("inf"))
QUICK = Effort(rounds=3, turn=0.5, run=4.0, product=0.05, budget=57.0)


def measure(configs: list[Config], *, quick: bool, say: Say) -> Benchmark:
    """Measures the configurations one after the other. `quick`: the first batch size of each, fewer rounds, no grid, no
    compiled PyTorch, under a minute per configuration."""
    began = time.monotonic()
    found = Benchmark(machine.describe() | {"quick": quick, "ceilings": []}, [], [], [])
    with Child(1) as one, Child(machine.cores()) as all_threads:
        for child in (one, all_threads):  # both load their libraries meanwhile
            child.tell("multiply", shapes=[(8, 8, 8)], seconds=0.001)
        for child in (one, all_threads):
            child.answer()
        for config in configs:
            for batch in config.batches[:1] if quick else config.batches:
                _Measurement(config, batch, quick, found, say, began).run(one, all_threads)
            began = time.monotonic()
    return found


class _Measurement:
    """One configuration at one batch size."""

    def __init__(self, config: Config, batch: int, quick: bool, found: Benchmark, say: Say, began: float):
        self.config, self.batch, self.quick, self.found, self.began = config, batch, quick, found, began
        self.spec = config.at(batch)
        self.say = lambda text: say(f"{config.name}, batch {batch}: {text}")
        self.cores, self.effort = machine.cores(), QUICK if quick else FULL
        self.start_seconds = 0.0
        self.paces: dict[str, Pace] = {}

    def run(self, one: Child, all_threads: Child) -> None:
        """Measures in order of importance: a quick benchmark leaves out the last parts."""
        self.ceiling = self._ceiling(one, all_threads)
        with ExitStack() as stack:
            self._contest(stack)
        alone = self._alone()
        everything = self._together()
        self._judge(alone, everything, self._grid())

    def _seconds_left(self) -> float:
        return self.effort.budget - (time.monotonic() - self.began)

    def _fits(self, what: str, seconds: float) -> bool:
        """Whether `seconds` are left for a measurement; reports it when not."""
        if self._seconds_left() >= seconds:
            return True
        self._skip(what, f"would not fit into a quick benchmark (about {seconds:.0f} s)")
        return False

    def _skip(self, what: str, why: str) -> None:
        self.found.skipped.append(Skipped(f"{self.config.name}, batch {self.batch}", what, why))

    def _ceiling(self, one: Child, all_threads: Child) -> Ceiling:
        """The machine's ceiling at the model's own shapes and at a large one, with one thread and with all."""
        shapes, sizes = machine.shapes(self.spec), [STATE_BYTES * self.spec.parameters(), machine.LARGE_COPY]
        seconds = self.effort.product
        ceilings = []
        for threads, child in ((1, one), (self.cores, all_threads)):
            self.say(f"ceiling of {threads} thread{'s' * (threads > 1)}")
            products = child.ask("multiply", shapes=shapes, seconds=seconds)["flops"]
            copies = child.ask("copy", sizes=sizes, seconds=2 * seconds)["bandwidth"]
            every = [
                (value, name, shape) for shape, by in zip(shapes, products, strict=True) for name, value in by.items()
            ]
            best, library, shape = max(every)
            own = max(value for value, _, at in every if at != machine.LARGE)
            ceilings.append(Ceiling(best, max(copies)))
            self.found.machine["ceilings"].append(
                {
                    "config": self.config.name,
                    "batch": self.batch,
                    "threads": threads,
                    "gflops": best / 1e9,
                    "library": library,
                    "shape": list(shape),
                    "own_shapes_gflops": own / 1e9,
                    "copy_gb_per_second": max(copies) / 1e9,
                    "copy_state_gb_per_second": copies[0] / 1e9,
                    "copy_large_gb_per_second": copies[1] / 1e9,
                    "products": [
                        {"shape": list(shape), **{name: value / 1e9 for name, value in by.items()}}
                        for shape, by in zip(shapes, products, strict=True)
                    ],
                }
            )
        return ceilings[0]

    def _start(
        self, stack: ExitStack, implementation: str, threads: int, members: int = 1
    ) -> tuple[Child, dict[str, Any]] | None:
        """A child that has compiled and is ready to train, with its answer; None where it cannot start."""
        name = f"{implementation}, {threads} thread{'s' * (threads > 1)}"
        self.say(f"starting {name}")
        child = stack.enter_context(Child(threads))
        spec = self.spec.builtins()
        try:
            return child, child.ask(
                "start", implementation=implementation, spec=spec, members=members, threads=threads, limit=PATIENCE
            )
        except ChildError as error:
            child.close()
            self._skip(name, str(error))
            return None

    def _contest(self, stack: ExitStack) -> None:
        """Measures all implementations in turn."""
        began = time.monotonic()
        entered: dict[str, tuple[str, int, Child, dict[str, Any]]] = {}

        def enter(implementation: str, threads: int) -> None:
            if got := self._start(stack, implementation, threads):
                name = implementation if implementation.startswith("ebbtide") else f"{implementation}, {threads}"
                entered[name] = (implementation, threads, *got)

        enter("ebbtide", 1)
        if "ebbtide" not in entered:
            raise ChildError(f"ebbtide itself did not start: {self.found.skipped[-1].why}")
        self.start_seconds = time.monotonic() - began
        if entered["ebbtide"][3]["note"].startswith("native"):
            enter(BY_XLA, 1)
        counts = sorted({1, self.cores})
        if plain_torch.is_installed():
            for threads in counts[:1] if self.quick else counts:
                enter("PyTorch eager", threads)
        else:
            self._skip("PyTorch", "is not installed")
        # Unrolled layers under vmap take several times as long to compile as our own program.
        if not self.quick or plain_transformer(self.config.spec).layers <= 2:
            for threads in counts[:1] if self.quick else counts:
                enter("plain JAX", threads)
        else:
            self._skip("plain JAX", "compiles for too long for a quick benchmark")
        if self.quick and plain_torch.is_installed():
            self._skip("PyTorch compiled, and on more than one thread", "left out of a quick benchmark")
        elif plain_torch.is_installed():
            for threads in counts:
                enter("PyTorch compiled", threads)
        self.say(f"{self.effort.rounds} rounds of {len(entered)} contestants")
        self.paces = take_turns({name: [one[2]] for name, one in entered.items()}, self.effort.rounds, self.effort.turn)
        for name, (implementation, threads, child, answer) in entered.items():
            memory = child.ask("memory")["megabytes"] or None
            self._row(
                implementation,
                self.paces[name],
                threads=threads,
                compile_seconds=answer["compile_seconds"],
                peak_memory_mb=memory,
                note=answer["note"],
            )

    def _row(self, implementation: str, pace: Pace, *, threads: int = 1, processes: int = 1, **more: Any) -> Row:
        rate = pace.sequences_per_second
        done = rate * flops(self.spec) / self.batch
        row = Row(
            config=self.config.name,
            implementation=implementation,
            batch=self.batch,
            threads=threads,
            processes=processes,
            sequences_per_second=rate,
            fraction_of_roofline=self.ceiling.fraction(self.spec, rate, processes * threads),
            gflops=done / 1e9,
            fraction_of_ceiling=done / self.ceiling.flops / (processes * threads),
            ratio_to_ebbtide=pace.ratio,
            **more,
        )
        self.found.rows.append(row)
        return row

    def _cut(self, members: int) -> tuple[Spec, int]:
        """The spec of a whole run of `members` members, on all cores, shortened to fit."""
        spec: Spec = msgspec.structs.replace(self.spec, members=members)
        pace = self.paces["ebbtide"].sequences_per_second * min(self.cores, members) / members
        return whole.shorten(spec, max(pace * self.effort.run, 64 * self.batch))

    def _run(self, do: str, name: str, spec: Spec, **command: Any) -> dict[str, Any] | None:
        """The answer of a child that trains a run, None where that would not fit or fails."""
        if not self._fits(name, self.start_seconds + self.effort.run + 5):
            return None
        self.say(name)
        began = time.monotonic()
        with Child(1) as child, _folder() as folder:
            try:
                return child.ask(do, spec=spec.builtins(), folder=folder, began=began, limit=PATIENCE, **command)
            except ChildError as error:
                self._skip(name, str(error))
                return None

    def _alone(self) -> Row | None:
        """A run of one member on one core: its pace, and the share of evaluations and checkpoints."""
        spec, intervals = self._cut(1)
        answer = self._run("alone", "whole run, one core", spec, intervals=intervals)
        if answer is None:
            return None
        rate = answer["sequences_per_second"]
        share = whole.overhead_share(self.spec, self.paces["ebbtide"].sequences_per_second, answer)
        if not intervals:  # too short for an evaluation: it is charged their share
            rate *= 1 - share
        note = f"{intervals} evaluations inside" if intervals else "charged with the share of evaluations"
        return self._whole_row(rate, overhead_share=share, note=note)

    def _together(self) -> Row | None:
        """A run of all the spec's members on all cores, as the command line trains it."""
        members = self.spec.members
        spec, intervals = self._cut(members)
        processes = min(self.cores, members)
        name = f"whole run, {members} members, {processes} processes"
        answer = self._run("together", name, spec, intervals=intervals, processes=processes)
        if answer is None:
            return None
        note = f"{intervals} evaluations inside" if intervals else "shorter than the interval between evaluations"
        return self._whole_row(
            answer["sequences_per_second"],
            processes=processes,
            members=members,
            first_step_seconds=answer["first_step_seconds"],
            peak_memory_mb=answer["megabytes"] or None,
            note=note,
        )

    def _whole_row(self, rate: float, **more: Any) -> Row:
        ratio = rate / self.paces["ebbtide"].sequences_per_second
        return self._row("ebbtide, whole run", Pace(rate, ratio), **more)

    def _grid(self) -> float | None:
        """Measures members x processes x threads; returns the pace of all processes over that of one."""
        if self.cores < 2:
            return None
        members = (1,) if self.quick else (1, 4)
        cost = self.start_seconds * self.cores + 2 * self.effort.rounds * self.effort.turn + 2
        if not self._fits("processes side by side", cost):
            return None
        if self.quick:
            self._skip("grid of members x processes x threads", "left out of a quick benchmark")
        contestants: dict[str, list[Child]] = {}
        places: dict[str, tuple[int, int, int]] = {}
        with ExitStack() as stack:
            for m in members:
                got = [self._start(stack, "ebbtide", 1, m) for _ in range(self.cores)]
                ready = [one[0] for one in got if one]
                if len(ready) < self.cores:
                    return None
                for processes in (1, self.cores):
                    name = f"{m} x {processes} x 1"
                    contestants[name], places[name] = ready[:processes], (m, processes, 1)
                if not self.quick and (wide := self._start(stack, "ebbtide", self.cores, m)):
                    name = f"{m} x 1 x {self.cores}"
                    contestants[name], places[name] = [wide[0]], (m, 1, self.cores)
            self.say(f"grid of {len(contestants)}: members x processes x threads")
            paces = take_turns(contestants, self.effort.rounds, self.effort.turn)
        for name, (m, processes, threads) in places.items():
            self._row("ebbtide, grid", paces[name], threads=threads, processes=processes, members=m * processes)
        return paces[f"1 x {self.cores} x 1"].ratio

    def _judge(self, alone: Row | None, everything: Row | None, scaling: float | None) -> None:
        """Compares the measurements with the targets of this configuration."""
        config = self.config

        def target(what: str, value: float | None, **bound: float) -> None:
            self.found.targets.append(Target(config=config.name, batch=self.batch, what=what, value=value, **bound))

        reached = alone and alone.fraction_of_roofline
        target(
            "fraction of roofline, whole run on one core",
            reached,
            least=config.roofline[config.batches.index(self.batch)],
        )
        others = [pace.ratio for name, pace in self.paces.items() if name.startswith("PyTorch")]
        target("pace over the best PyTorch", 1 / max(others) if others else None, least=config.over_torch)
        if self.cores == 2:
            target("two processes over one", scaling, least=1.9)
        target("share of evaluation and checkpoints", alone and alone.overhead_share, most=0.05)
        if config.first_step:
            target("seconds to the first step", everything and everything.first_step_seconds, most=config.first_step)
        if config.memory:
            used = everything and everything.peak_memory_mb
            target(f"peak MB of {self.spec.members} members, all processes", used, most=config.memory)


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ebbtide-bench-") as folder:
        yield str(Path(folder) / "run")
