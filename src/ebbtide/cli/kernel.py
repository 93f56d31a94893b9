"""`ebbtide kernel`: builds the compiled kernel, and shows whether it is built, which studies it serves and why not
others."""

import os
from argparse import Namespace
from pathlib import Path

from rich.table import Table

from ebbtide.cli.console import console
from ebbtide.errors import InputError
from ebbtide.interrupts import stop_requests
from ebbtide.kernel import build
from ebbtide.kernel.library import load
from ebbtide.machine import processor
from ebbtide.training import kernels


def kernel_build(options: Namespace) -> int:
    """Builds the library for this machine, also where one exists."""
    try:
        with stop_requests() as stop:
            path = build.build(build.find_compiler(), stop.is_set)
    except build.BuildError as error:
        raise InputError("kernel", "native", str(error)) from error
    console.print(f"built {_home(path)}", soft_wrap=True)
    return 0


def kernel_status(options: Namespace) -> int:
    """Prints which kernel would train each study on this machine, and why."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    kind = kernels.requested_kernel()
    for name, value in (("asked for", kind), ("processor", processor()), *_library()):
        table.add_row(name, value)
    console.print(table)
    console.print()
    console.print(_studies(kind))
    return 0


def _library() -> list[tuple[str, str]]:
    try:
        compiler = build.find_compiler()
    except build.BuildError as error:
        return [("compiler", f"{error}: everything is trained by XLA")]
    found = [("compiler", f"{' '.join(compiler.words)}: {compiler.version}")]
    path = build.library(compiler)
    if not os.path.lexists(path):
        return [*found, ("library", "not built: the first run that can use it builds it, or `ebbtide kernel build`")]
    try:
        load(path)
    except build.BuildError as error:
        return [*found, ("library", f"{error}: the next run builds it again")]
    return [*found, ("library", _home(path))]


def _studies(kind: str) -> Table:
    from ebbtide.papers.registry import STUDIES

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("study (quick)", "trained by", ""):
        table.add_column(column)
    for study in STUDIES:
        if not study.bases:
            continue
        spec = study.base("quick").spec
        against = "asked for" if kind == "xla" else kernels.unsupported_reason(spec)
        table.add_row(study.name, "XLA" if against else "the compiled kernel", against or "")
    return table


def _home(path: Path) -> str:
    """The path with ~ in place of the user's home folder."""
    home = os.environ.get("HOME")
    return f"~/{path.relative_to(home)}" if home and path.is_relative_to(home) else str(path)
