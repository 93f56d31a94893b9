"""The command line. Nothing heavy is imported before a command needs it."""

import os
import sys

from ebbtide.interrupts import ignore_stop_signals, leave_at_stop_signals


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 stopped by Ctrl-C or SIGTERM.

    Without `arguments` the process is this command's alone: see `leave_at_stop_signals`,
    `install_standard_output`, `forget_settings`, `quiet_devices`.
    """
    if arguments is None:
        leave_at_stop_signals()  # before anything else is imported
    from ebbtide.cli.command import run_command

    if arguments is not None:
        return run_command(list(arguments))
    from ebbtide.device_messages import quiet_devices
    from ebbtide.machine import forget_settings
    from ebbtide.standard_output import install_standard_output

    forget_settings(os.environ)
    quiet_devices(os.environ)
    output = install_standard_output()
    code = run_command(sys.argv[1:])
    ignore_stop_signals()
    if output is None:
        return code
    output.flush()
    if output.failure is None or isinstance(output.failure, BrokenPipeError):  # `ebbtide ls | head`
        return code
    sys.stderr.write(f"ebbtide: standard output: {output.failure.strerror}\n")
    return code or 2
