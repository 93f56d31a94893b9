"""`ebbtide dashboard`: a local page over a folder of runs."""

import os
from argparse import Namespace

from ebbtide.cli.console import console
from ebbtide.cli.parser import RUNS
from ebbtide.interrupts import CODE


def dashboard(options: Namespace) -> int:
    """Serves the page until Ctrl-C; prints its address first."""
    from ebbtide.dashboard.places import root_at
    from ebbtide.dashboard.serve import check_installed, place_of, serve

    check_installed()
    place = place_of(options.host, options.port, options.token)
    root = root_at(options.root, missing=options.root == RUNS)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # reports import JAX, and an accelerator is for training

    def say(address: str) -> None:
        console.print(f"{root.path} is shown at {address}", soft_wrap=True)
        console.print("Ctrl-C ends it. Nothing in the folder is changed.", style="dim", soft_wrap=True)

    serve(root, place, say)
    return CODE
