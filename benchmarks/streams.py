"""The compiled kernel against XLA on streams: `python benchmarks/streams.py [--json FILE]`. Nothing else should run
meanwhile.

One member on one thread, sampling included, as in `ebbtide bench`: the two take turns in rounds, each in a process of
its own that has compiled beforehand; the ratio is the median over rounds of the ratio within a round.
"""
# ruff: noqa: T201 - its output is a table

import argparse
import json
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from ebbtide.bench.child import BY_XLA
from ebbtide.bench.rounds import Child, take_turns
from ebbtide.papers.affine_recurrence.settings import QUICK as RECURRENCES
from ebbtide.papers.bounded_cfg.pairings import TRANSFORMER
from ebbtide.papers.bounded_cfg.settings import QUICK as WORDS
from ebbtide.papers.chains.study import QUICK as CHAINS
from ebbtide.training.spec import Spec

ROUNDS, SECONDS = 7, 1.0
BRACKETS = replace(
    WORDS,
    task=replace(WORDS.task, target="symbol"),
    source=replace(WORDS.source, types=3, depth=3),
    model=TRANSFORMER,
    batch=32,
)
"""The words and the transformer of `bounded-cfg`, experiment `pairings`."""
CONFIGS = {
    "chains: 5 states, 32 symbols": CHAINS,
    "affine-recurrence: 16 numbers": RECURRENCES,
    "bounded-cfg: words of at most 24 letters": BRACKETS,
}


def paces(spec: Spec) -> dict[str, float]:
    """Sequences per second of the loop by the compiled kernel and by XLA, and the ratio of the two."""
    with ExitStack() as stack:
        children = {name: [stack.enter_context(Child(1))] for name in ("ebbtide", BY_XLA)}
        for name, (child,) in children.items():
            answer = child.ask("start", implementation=name, spec=spec.builtins(), members=1, threads=1)
            if name == "ebbtide" and not answer["note"].startswith("native"):
                raise SystemExit(f"no compiled kernel: {answer['note']}")
        kernel, xla = take_turns(children, ROUNDS, SECONDS).values()
    return {"kernel": kernel.sequences_per_second, "xla": xla.sequences_per_second, "ratio": 1 / xla.ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers to FILE")
    given = parser.parse_args()
    found = {}
    print(f"{'':45}{'kernel/s':>12}{'XLA/s':>12}{'ratio':>8}")
    for name, spec in CONFIGS.items():
        found[name] = paces(spec)
        row = found[name]
        print(f"{name:45}{row['kernel']:12,.0f}{row['xla']:12,.0f}{row['ratio']:8.2f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
