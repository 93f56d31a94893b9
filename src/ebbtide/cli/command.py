"""One command of the command line, from its words to its exit code."""

import os
import sys
from importlib import import_module
from keyword import iskeyword

from ebbtide.cli.code import load_files
from ebbtide.cli.parser import DATA_VERBS, KERNEL_VERBS, VERBS, option_names, overrides, parser
from ebbtide.device_messages import call_with_fallback
from ebbtide.errors import InputError, Interrupted, nearest, one_line, visible
from ebbtide.interrupts import CODE, STOPPED
from ebbtide.machine import set_deterministic
from ebbtide.user_code import explain

HOMES = {
    **dict.fromkeys(("studies", "run", "resume"), "study"),
    **dict.fromkeys(("ls", "show", "import", "export", "report", "fsck"), "folders"),
    **dict.fromkeys(("verify", "bench"), "checks"),
}
"""The module of a command; of any other it has the command's name."""


def run_command(words: list[str]) -> int:
    """Runs the command that these words give; returns its exit code."""
    verbs = {"sweep": VERBS, "data": DATA_VERBS, "kernel": KERNEL_VERBS}.get(words[0], ()) if words else ()
    if words[1:2] and words[1] in verbs:
        words[:2] = [" ".join(words[:2])]
    options, rest = parser().parse_known_args(words)
    if rest and options.command != "run":
        unknown = [word[2:].partition("=")[0] for word in rest if word.startswith("--")]
        hint = nearest(unknown[0], option_names(options)) if unknown else ""
        parser().error(f"unrecognized arguments: {visible(' '.join(rest))}{hint}")
    from ebbtide.runs.signed import DamagedError

    try:
        options.fields = overrides(rest)
        name = options.command.replace(" ", "_")
        group = name.partition("_")[0]
        name += "_" if iskeyword(name) else ""
        if getattr(options, "kernel", None) is not None:  # for this process and those it starts
            os.environ["EBBTIDE_KERNEL"] = options.kernel
        if getattr(options, "deterministic", False):
            set_deterministic(os.environ)

        def command() -> int:
            load_files(options)
            return getattr(import_module(f"ebbtide.cli.{HOMES.get(group, group)}"), name)(options)

        return call_with_fallback(command)
    except (InputError, DamagedError) as error:
        sys.stderr.write(f"ebbtide: {visible(str(error))}\n")
        return 2
    except (Interrupted, KeyboardInterrupt):
        sys.stderr.write(f"{STOPPED}\n")
        return CODE
    except BrokenPipeError:  # `ebbtide ls | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written ...
        if error.filename is None:
            raise
        sys.stderr.write(f"ebbtide: {one_line(str(error.filename))}: {error.strerror}\n")
        return 2
    except Exception as error:  # whatever a file of the user raises is told in one line; all else is a bug
        told = explain(error)
        if told is None:
            raise
        sys.stderr.write(f"ebbtide: {visible(str(told))}\n")
        return 2
