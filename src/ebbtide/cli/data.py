"""The `data` commands. Every function returns the exit code."""

import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ebbtide.cli.console import console
from ebbtide.data.download import WorkProgress
from ebbtide.errors import InputError, nearest, require
from ebbtide.interrupts import raise_on_stop_signals
from ebbtide.report.progress import ProgressLine, clock
from ebbtide.report.tables import short
from ebbtide.sources.omniglot import data_folder

DATASETS = ("omniglot",)


def data_fetch(options: Namespace) -> int:
    """Downloads Omniglot and packs it into one file."""
    from ebbtide.data.archives import fetch_omniglot

    name = options.dataset
    require(name in DATASETS, "dataset", name, f"must be one of {', '.join(DATASETS)}{nearest(name, DATASETS)}")
    source = Path(options.source) if options.source else None

    def work(report: Callable[[WorkProgress], None]) -> int:
        path, how = fetch_omniglot(data_folder(), report, source=source)
        _write_file(path, how)
        return 0

    return _interruptible(work, "what was downloaded is kept")


def data_features(options: Namespace) -> int:
    """Makes features of Omniglot with an encoder."""
    from ebbtide.data.encoders import find_encoder
    from ebbtide.data.make_features import make_features, reduce_features

    require(options.pca is None or options.pca >= 1, "pca", options.pca, "must be at least 1")
    weights = Path(options.weights) if options.weights else None
    encoder = find_encoder(options.encoder, side=options.side, weights=weights)

    def work(report: Callable[[WorkProgress], None]) -> int:
        _write_file(*make_features(data_folder(), encoder, report, augment=options.augment))
        if options.pca is not None:
            _write_file(*reduce_features(data_folder(), encoder.name, options.pca, augment=options.augment))
        return 0

    return _interruptible(work, "the characters that were encoded are kept")


def data_tokens(options: Namespace) -> int:
    """Makes classes of tokens by clustering a matrix of token embeddings."""
    from ebbtide.data.tokens import make_tokens

    settings = ("classes", "exemplars", "array", "clusters", "skip", "closest", "seed")
    given: dict[str, Any] = {name: getattr(options, name) for name in settings}

    def work(report: Callable[[WorkProgress], None]) -> int:
        path, found = make_tokens(data_folder(), options.source, report, **given)
        _write_file(path, "made")
        have = len(found.token)
        console.print(
            f"{found.enough} of {found.clusters} clusters have {options.exemplars} tokens or more; the file holds "
            f"{have} classes",
            soft_wrap=True,
        )
        if have < options.classes:
            console.print(
                f"fewer than the {options.classes} asked for: none was filled up with tokens of another cluster. "
                "Other --clusters, or fewer --exemplars, may give more classes",
                style="yellow",
                soft_wrap=True,
            )
        return 0

    return _interruptible(work, "nothing was written")


def data_info(options: Namespace) -> int:
    """Prints which data files there are, or the content of one file or source; with --figure draws a sheet of
    characters."""
    from ebbtide.data.info import contents, data_files

    folder, what = data_folder(), options.what
    if options.figure:
        require(what in (None, "omniglot"), "what", what, "--figure draws the characters of omniglot")
        _figure(Path(options.figure), options.show)
        return 0
    if what is None:
        found = data_files(folder)
        console.print(f"data folder  {folder}", soft_wrap=True)
        if not found:
            console.print("holds no data files; get Omniglot with: ebbtide data fetch omniglot")
            return 0
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("file", "arrays"):
            table.add_column(name, overflow="fold")
        table.add_column("bytes", justify="right")
        for path in found:
            try:
                arrays = ", ".join(f"{k} {list(a.shape)}" for k, a in contents(path).arrays.items())
            except InputError as error:
                arrays = error.allowed
            table.add_row(path.name, arrays, short(path.stat().st_size))
        console.print(table)
        return 0
    sources = _sources()
    if what != "omniglot" and what in sources:
        return _source(what, sources[what])
    path = folder / "omniglot.npz" if what == "omniglot" else Path(what)
    path = path if path.is_file() else folder / path.name
    allowed = f"no such file, here or in {folder}; sources: {', '.join(sources)}{nearest(what, sources)}"
    if what == "omniglot":
        allowed = f"no omniglot.npz in {folder}: run ebbtide data fetch omniglot"
    require(path.is_file(), "what", what, allowed)
    _contents(contents(path))
    if what == "omniglot":
        _characters(path)
    return 0


def _contents(found: Any) -> None:
    console.print(Text(found.path.name, "bold"), f" {found.path}  {found.size:,} bytes", soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("array", "type", "shape"):
        table.add_column(name)
    for name, header in found.arrays.items():
        table.add_row(name, header.dtype, str(list(header.shape)))
    console.print(table)
    for name, value in found.values.items():
        console.print(Text(f"{name}: {value}"), soft_wrap=True)


def _characters(path: Path) -> None:
    from ebbtide.sources.drawings import SIDE, read_drawings

    found = read_drawings(path)
    evaluation = int(found.is_evaluation.sum())
    alphabets = {kind: len(set(found.alphabet[found.is_evaluation == kind])) for kind in (False, True)}
    console.print(
        f"{len(found.packed)} characters x {found.packed.shape[1]} drawers, {SIDE} x {SIDE} pixels: background "
        f"{len(found.packed) - evaluation} characters of {alphabets[False]} alphabets, evaluation {evaluation} of "
        f"{alphabets[True]}",
        soft_wrap=True,
    )


def _source(name: str, kind: Any) -> int:
    """Prints the sizes of a source with its default fields."""
    source = kind(**({"path": ""} if name == "features" else {}))
    require(name != "features", "what", name, "this source reads a file of yours: give the file")
    source.check()
    source.check_data()
    sizes = source.sizes()
    console.print(Text(name, "bold"), f" {(kind.__doc__ or '').strip().splitlines()[0]}", soft_wrap=True)
    console.print(
        f"{sizes.classes} classes + {sizes.holdout_classes} held out; {sizes.exemplars} exemplars + "
        f"{sizes.holdout_exemplars} held out; {sizes.dim} features (defaults: every field can be set)",
        soft_wrap=True,
    )
    return 0


def _sources() -> dict[str, Any]:
    """The kinds of source, by tag."""
    from typing import get_args

    from ebbtide.training.kinds import AnySource

    return {str(kind.__struct_config__.tag): kind for kind in get_args(AnySource)}


def _figure(out: Path, show: Any) -> None:
    from ebbtide.report.drawings_figure import SHOWS, drawings_figure
    from ebbtide.runs.output import check_output, write_output
    from ebbtide.sources.drawings import FILE, read_drawings

    require(show in SHOWS, "show", show, f"must be one of {', '.join(SHOWS)}{nearest(show, SHOWS)}")
    require(out.suffix in (".png", ".svg"), "figure", str(out), "must end in .png or .svg")
    check_output(out, "figure")
    path = data_folder() / FILE
    require(path.is_file(), "what", "omniglot", f"no {FILE} in {path.parent}: run ebbtide data fetch omniglot")
    write_output(out, drawings_figure(read_drawings(path), show)[f"figure{out.suffix}"], "figure")
    console.print(f"figure  {out}", soft_wrap=True)


def _write_file(path: Path, how: str) -> None:
    console.print(f"{path}  {path.stat().st_size:,} bytes ({how})", soft_wrap=True)


def _interruptible(work: Callable[[Callable[[WorkProgress], None]], int], kept: str) -> int:
    try:
        with raise_on_stop_signals(), ProgressLine(console, _Words()) as line:
            return work(line)
    except KeyboardInterrupt:
        console.print(f"stopped; {kept}. The same command goes on", soft_wrap=True)
        return 130


class _Words:
    """A `WorkProgress` as a line, with the time left at the average pace so far."""

    def __init__(self) -> None:
        self._first: tuple[str, float, int] | None = None

    def __call__(self, p: WorkProgress) -> str:
        now = time.monotonic()
        if self._first is None or self._first[0] != p.what:
            self._first = (p.what, now, p.done)
        _, began, start = self._first
        text = f"{p.what}: {short(p.done)}{f' of {short(p.total)}' if p.total else ''} {p.unit}"
        if p.total and p.done > start:
            text += f", {clock((now - began) * (p.total - p.done) / (p.done - start))} left"
        return text
