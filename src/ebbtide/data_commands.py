"""What the `data` commands do. Every function returns the exit code."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

from rich.markup import escape
from rich.table import Table

from ebbtide.cli import VERBS
from ebbtide.commands import console
from ebbtide.data.download import Progress, Report
from ebbtide.data.inventory import Item, examine, find_file, inventory
from ebbtide.errors import InputError, nearest, require
from ebbtide.report.progress import ProgressLine
from ebbtide.report.tables import short
from ebbtide.sources.omniglot import data_folder

T = TypeVar("T")
SETS = ("omniglot",)


def data(options: Namespace) -> int:
    """`ebbtide data` without one of its verbs."""
    allowed = f"must be followed by one of {', '.join(VERBS['data'])}{nearest(options.verb or '', VERBS['data'])}"
    raise InputError("data", options.verb, allowed)


def data_fetch(options: Namespace) -> int:
    """Downloads or packs Omniglot; exit code 130 when interrupted."""
    from ebbtide.data.archives import fetch_omniglot

    require(options.name in SETS, "name", options.name, f"must be {SETS[0]}{nearest(options.name, SETS)}")
    source = Path(options.source) if options.source else None
    made = _work(lambda report: fetch_omniglot(data_folder(), report, source=source))
    if made is None:
        return 130
    _tell(*made)
    return 0


def data_features(options: Namespace) -> int:
    """Encodes every drawing; exit code 130 when interrupted (what is encoded is kept)."""
    from ebbtide.data.encoders import find_encoder
    from ebbtide.data.make_features import make_features, rearrange_features, reduce_features
    from ebbtide.sources.layout import Layout

    layouts = get_args(Layout)
    allowed = f"must be one of {', '.join(layouts)}{nearest(options.layout, layouts)}"
    require(options.layout in layouts, "layout", options.layout, allowed)
    augment, released = options.augment, options.layout != "correct"
    require(augment or not released, "layout", options.layout, "is an order of the eight transforms: needs --augment")
    allowed = "must be from 1 to the encoder's dimensions - 1"
    require(options.pca is None or options.pca >= 1, "pca", options.pca, allowed)
    weights = Path(options.weights) if options.weights else None
    folder, pca = data_folder(), options.pca or 0

    def work(report: Report) -> list[tuple[Path, str]]:
        encoder = find_encoder(options.encoder, side=options.side, weights=weights)
        made = [make_features(folder, encoder, report, augment=augment)]
        if pca:
            made.append(reduce_features(folder, encoder.name, pca, augment=augment))
        if released:
            made.append(rearrange_features(folder, encoder.name, pca=pca))
        return made

    made = _work(work)
    for one in made or []:
        _tell(*one)
    return 130 if made is None else 0


def data_tokens(options: Namespace) -> int:
    """Clusters a matrix of token embeddings; says how many classes it filled."""
    from ebbtide.data.tokens import make_tokens

    asked = {"classes": options.classes, "exemplars": options.exemplars}
    rest = {"array": options.array, "clusters": options.clusters, "skip": options.skip}
    how = {"closest": options.closest, "seed": options.seed}
    made = _work(lambda report: make_tokens(data_folder(), options.source, report, **asked, **rest, **how), keeps=False)
    if made is None:
        return 130
    _tell(made.path, made.how)
    filled = f"{made.classes:,} of {options.classes:,} classes of {options.exemplars} tokens"
    console.print(f"{filled}; {made.enough:,} of {made.clusters:,} clusters had that many", soft_wrap=True)
    if made.classes < options.classes:
        console.print("fewer than asked for: other --clusters, fewer --exemplars or a larger vocabulary may fill them")
    return 0


def data_info(options: Namespace) -> int:
    """What the data folder or a file holds; with --figure a picture of the characters."""
    folder = data_folder()
    if options.figure:
        from ebbtide.report.drawings_figure import write_drawings_figure
        from ebbtide.sources.drawings import read_drawings

        path = find_file(folder, options.name or "omniglot")
        write_drawings_figure(read_drawings(path), Path(options.figure))
        console.print(f"figure  {escape(options.figure)}", soft_wrap=True)
        return 0
    if options.name:
        _show(examine(find_file(folder, options.name)))
        return 0
    found = inventory(folder)
    chosen = "EBBTIDE_DATA" if folder == data_folder() and _chosen() else "the default; EBBTIDE_DATA names another"
    console.print(f"{escape(str(folder))}  [dim]({chosen})[/]", soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("file", "classes", "exemplars", "features", "bytes", "what"):
        right = column in ("classes", "exemplars", "features", "bytes")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for item in found.items:
        shape = item.arrays[item.main()].shape if item.arrays else ()
        sizes = [f"{n:,}" for n in shape] if len(shape) == 3 else ["-", "-", "-"]
        sizes[2:] = ["105 x 105"] if item.main() == "images_packed" else sizes[2:]
        table.add_row(escape(item.path.name), *sizes, short(item.size), escape(item.what()))
    if found.items:
        console.print(table)
    for path, reason in found.unreadable:
        console.print(f"[bold red]damaged[/]  {escape(path.name)}: {escape(reason)}", soft_wrap=True)
    for path in found.begun:
        console.print(f"[yellow]begun[/]    {escape(path.name)}: the command that began it goes on", soft_wrap=True)
    if not found.items and not found.unreadable:
        console.print("nothing yet; begin with: ebbtide data fetch omniglot")
    return 0


def _show(item: Item) -> None:
    console.print(f"{escape(str(item.path))}  {short(item.size)} bytes  {escape(item.what())}", soft_wrap=True)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 2))
    for column in ("array", "type", "shape"):
        table.add_column(column)
    for name, header in item.arrays.items():
        table.add_row(escape(name), header.dtype, " x ".join(f"{n:,}" for n in header.shape))
    console.print(table)
    for name, text in item.notes.items():
        console.print(f"  {escape(name)}: {escape(text)}", soft_wrap=True)


def _chosen() -> bool:
    import os

    return bool(os.environ.get("EBBTIDE_DATA"))


def _work(call: Callable[[Report], T], *, keeps: bool = True) -> T | None:
    """The result of a call with a progress line; None when it was interrupted."""
    try:
        with ProgressLine(console, _line) as line:
            return call(line)
    except KeyboardInterrupt:
        kept = "; what is done is kept: the same command goes on there" if keeps else "; nothing was written"
        console.print(f"stopped{kept}")
        return None


def _line(p: Progress) -> str:
    """`images_background.zip: 4.2M of 9.46M bytes, 44 %`"""
    if not p.total:
        return f"{p.what}: {short(p.done)} {p.unit}"
    return f"{p.what}: {short(p.done)} of {short(p.total)} {p.unit}, {100 * p.done // p.total} %"


def _tell(path: Path, how: str) -> None:
    console.print(f"{escape(str(path))}: {escape(how)}", soft_wrap=True)
