"""`ebbtide probe`: measures of the attention heads of a run's models, at every kept checkpoint."""

import io
from argparse import Namespace
from pathlib import Path

import numpy as np
from rich.table import Table

from ebbtide.cli.console import console, find_run
from ebbtide.errors import require
from ebbtide.mechanisms.linear import joint_plane
from ebbtide.mechanisms.measures import HEADS, STRENGTHS
from ebbtide.report import tables
from ebbtide.report.probe_figure import heads_figure, lines_figure, plane_figure, rank_heads
from ebbtide.report.progress import ProgressLine
from ebbtide.runs.atomic import write_file
from ebbtide.runs.output import check_output_folder
from ebbtide.training.probe import ProbeResult, probe_run

FOLDER = "probes"


def probe(options: Namespace) -> int:
    """Measures every kept checkpoint; writes numbers and a figure for every measure into the run's folder."""
    run = find_run(options.run)
    require(options.sequences >= 2, "sequences", options.sequences, "must be at least 2")
    names = [name for name in options.measure.split(",") if name]
    folder = Path(options.out) if options.out else run.path / FOLDER
    check_output_folder(folder)
    with ProgressLine(console, lambda done: f"checkpoint {done[0]} of {done[1]}") as show:
        found = probe_run(run, names, options.on, sequences=options.sequences, say=show)
    for one in found:
        path = folder / f"{one.name}-{one.evaluator}"
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path.with_suffix(".npz"), _npz(one))
        for kind, data in draw(one, _name(run.path)).items():
            write_file(path.with_suffix(f".{kind}"), data)
        _print(one)
        console.print(f"numbers {path}.npz\nfigure  {path}.png", soft_wrap=True)
    return 0


def draw(one: ProbeResult, run: str) -> dict[str, bytes]:
    """The figure of a measure."""
    title = f"{run}: {one.name} on {one.evaluator} prompts\n{one.measure.what}"
    values = one.values
    if one.measure.axes == ("layer", "head"):
        return heads_figure(title, one.measure.unit, one.sequences, values)
    if one.measure.axes == ("head",):
        return heads_figure(title, one.measure.unit, one.sequences, values[:, :, None])
    if one.measure.axes == ("prompt",):
        return plane_figure(title, one.sequences, joint_plane(np.swapaxes(values, 0, 1)))
    if one.measure.axes == ("point",):
        names = ["embedding", *(f"after layer {i}" for i in range(values.shape[-1] - 1))]
        return lines_figure(title, one.measure.unit, one.sequences, {n: values[..., i] for i, n in enumerate(names)})
    if one.measure.axes == ("head", "strength"):
        lines = {f"{s:+.2f}": values[..., i].mean(-1) for i, s in enumerate(STRENGTHS)}
        return lines_figure(f"{title} (of each member the mean over its heads)", one.measure.unit, one.sequences, lines)
    return lines_figure(
        title, one.measure.unit, one.sequences, {n: values[..., i] for i, n in enumerate(_columns(one))}
    )


def _name(path: Path) -> str:
    """The name of a run in a title: its folder, or for a run of a sweep (named by a digest) the sweep and the task."""
    inside = len(path.parents) > 1 and (path.parents[1] / "sweep.json").exists()
    return f"{path.parents[1].name}, task {path.name[:8]}" if inside else path.name


def _print(one: ProbeResult) -> None:
    """Prints the mean over the members that are finite to the end, at a few checkpoints; a measure with a value per
    prompt is averaged over prompts. Heads are averaged by rank within each layer, because equal numbers in different
    members have nothing in common."""
    axes, values, words = one.measure.axes, one.values, f"{one.name} ({one.evaluator}): mean over members"
    if axes == ("prompt",):
        values = values.mean(-1, keepdims=True)
    if axes[:1] == ("head",) or axes[:2] == HEADS:
        values, words = _rank_heads(values, axes), f"{words} of heads by rank, largest at the end first"
    whole = np.isfinite(values[-1].reshape(values.shape[1], -1)).any(1)
    lost = int((~whole).sum()) if whole.any() else 0
    words += f" ({lost} not finite left out)" if lost else ""
    console.print(words, soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("sequences")
    mean = values[:, whole if whole.any() else slice(None)].mean(1).reshape(len(one.sequences), -1)
    for name in _columns(one):
        table.add_column(name, justify="right")
    for i in np.unique(np.linspace(0, len(mean) - 1, min(8, len(mean))).round().astype(int)):
        table.add_row(tables.short(int(one.sequences[i])), *("-" if np.isnan(x) else f"{x:.2f}" for x in mean[i]))
    console.print(table)


def _rank_heads(values: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    """The values with the heads of every member and layer sorted by their value at the last checkpoint (of several
    strengths, at the last)."""
    if axes == ("head", "strength"):
        order = rank_heads(values[:, :, None, :, -1])[1][:, 0]
        return np.take_along_axis(values, order[None, :, :, None], axis=2)
    return rank_heads(values)[0] if axes == HEADS else rank_heads(values[:, :, None])[0][:, :, 0]


def _columns(one: ProbeResult) -> list[str]:
    shape, axes = one.values.shape[2:], one.measure.axes
    if axes == ("part",):
        return list(one.measure.parts)
    if axes == ("kept",):
        return [f"{kept} kept" for kept in range(shape[0])]
    if axes == ("prompt",):
        return ["mean"]
    if axes == ("point",):
        return ["embedding", *(f"layer {i}" for i in range(shape[0] - 1))]
    if axes == ("head", "strength"):
        return [f"rank {h + 1} at {s:+.2f}" for h in range(shape[0]) for s in STRENGTHS]
    if axes == HEADS:
        return [f"layer {i} rank {h + 1}" for i in range(shape[0]) for h in range(shape[1])]
    return [f"rank {h + 1}" for h in range(shape[0])]


def _npz(one: ProbeResult) -> bytes:
    """The bytes of a file with `sequences`, values [checkpoint, member, ...], and the names along the other axes."""
    buffer = io.BytesIO()
    axes = np.array(["checkpoint", "member", *one.measure.axes])
    np.savez(buffer, sequences=one.sequences, values=one.values, axes=axes, allow_pickle=False)
    return buffer.getvalue()
