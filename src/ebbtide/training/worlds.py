"""The worlds of a run's members: the bank of exemplars that a member learns, and its evaluation prompts."""

from typing import Any, NamedTuple

from msgspec.structs import replace

from ebbtide.evaluation.evaluators import Draw, Suite, build_suite, compile_draw
from ebbtide.sources.bank import SeededSource
from ebbtide.training.spec import Seeds, Spec


class World(NamedTuple):
    """A source's bank, and the evaluation prompts that were drawn from it."""

    bank: Any
    suite: Suite


class Worlds:
    """The worlds of the members of a spec, each made once when it is first asked for; members of the same
    `Spec.world` share it. Worlds that differ in their seeds alone are drawn by one compiled program."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self._of: dict[int, World] = {}
        self._made: dict[bytes, World] = {}
        self._programs: dict[bytes, Draw] = {}

    def of(self, member: int) -> World:
        """The world of a member."""
        if member not in self._of:
            self._of[member] = self._make(self.spec.world(member))
        return self._of[member]

    def _make(self, spec: Spec) -> World:
        name = spec.to_json()
        if name not in self._made:
            bank = spec.source.build()
            draw = self._program(spec)
            n, seed = spec.evaluation_sequences, spec.seeds.evaluation
            suite = build_suite(spec.evaluators, spec.task, spec.source, bank, sequences=n, seed=seed, draw=draw)
            self._made[name] = World(bank, suite)
        return self._made[name]

    def _program(self, spec: Spec) -> Draw:
        seedless = replace(spec, seeds=Seeds())
        if isinstance(spec.source, SeededSource):
            seedless = replace(seedless, source=replace(spec.source, seed=0))
        name = seedless.to_json()
        if name not in self._programs:
            self._programs[name] = compile_draw(spec.evaluators, spec.task, spec.source, spec.evaluation_sequences)
        return self._programs[name]
