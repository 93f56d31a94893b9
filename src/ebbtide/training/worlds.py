"""The worlds of a run's members: the bank of exemplars that a member learns, and its evaluation prompts."""

from typing import Any, NamedTuple

from ebbtide.evaluation.evaluators import Suite, build_suite
from ebbtide.training.programs import Programs, programs_of, without_members
from ebbtide.training.spec import Spec


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
        self._programs: dict[bytes, Programs] = {}

    def of(self, member: int) -> World:
        """The world of a member."""
        if member not in self._of:
            self._of[member] = self._make(self.spec.world(member))
        return self._of[member]

    def _make(self, spec: Spec) -> World:
        name = spec.to_json()
        if name not in self._made:
            bank = spec.source.build()
            draw = self._programs_of(spec).draw
            n, seed = spec.evaluation_sequences, spec.seeds.evaluation
            suite = build_suite(spec.evaluators, spec.task, spec.source, bank, sequences=n, seed=seed, draw=draw)
            self._made[name] = World(bank, suite)
        return self._made[name]

    def _programs_of(self, spec: Spec) -> Programs:
        """`programs_of`, kept here as well: for code of the user it makes new ones at every call."""
        name = without_members(spec).to_json()
        if name not in self._programs:
            self._programs[name] = programs_of(spec)
        return self._programs[name]
