"""Curves from outside: files of other programs, read into a run folder of kind foreign (`runs.foreign`).

Two layouts are read: the HDF5 log of the public code of Singh et al. 2024 and 2025, which `ebbtide export --format
hdf5` writes (`read_hdf5`), and a tidy table as CSV, which `ebbtide export` writes (`read_table`). Nothing in a file is
believed before it has been checked: see `runs.foreign.ForeignCurves.check`.
"""

from pathlib import Path

from ebbtide.errors import InputError
from ebbtide.report.read_hdf5 import read_hdf5
from ebbtide.report.read_table import read_table
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.foreign import write_foreign

HDF5 = (".h5", ".hdf5")


def import_curves(source: Path, out: Path) -> RunFolder:
    """The foreign run, written to the new folder `out`, with the curves in a file, or in a folder of HDF5 logs.

    Raises `InputError` for a file that cannot be read so, and where `out` exists; nothing is written then.
    """
    if source.is_dir() or source.suffix in HDF5:
        return write_foreign(read_hdf5(source), out)
    if source.suffix == ".csv":
        return write_foreign(read_table(source), out)
    raise InputError("from", str(source), f"must be a {', '.join(HDF5)} or .csv file, or a folder of member_*/log.h5")
