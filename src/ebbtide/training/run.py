"""A run as its user sees it: the files of its folder, and the spec, the models, the curves and the figures in them."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.evaluation.summary import known_scalars
from ebbtide.models.model import Model, Params
from ebbtide.notebook import html_of
from ebbtide.report.export import COLUMNS, tidy_rows
from ebbtide.report.table_file import as_frame
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.training.feasible import check_loadable
from ebbtide.training.groups import from_dotted
from ebbtide.training.saved import check_parameters
from ebbtide.training.spec import Spec, from_builtins
from ebbtide.training.start import parameters

WATCHED = ("value", "sequences", "stopped_at")
"""Names in `RunFolder.best` that are no parameters."""


class Run(RunFolder):
    """A run folder, read only, with what is in it as Python objects: `spec`, `model(member, at)`, `metrics()`,
    `summary()`, `plot()`, `to_polars()`, `to_xarray()`. It sees what is committed, also while the run is being written.
    A notebook shows it as its section of `ebbtide report`.

    Args:
        path: the run's folder.

    Raises:
        InputError: the folder is no run folder.

    >>> run = eb.Run("runs/tiny")
    >>> run.status(), run.spec.model.width, run.checkpoints()
    ('complete', 16, [0, 64])
    >>> run.metrics()["icl"].shape  # [member, evaluation]
    (1, 2)
    """

    @cached_property
    def spec(self) -> Spec:
        """The spec of the run. Raises `InputError` when this version of ebbtide cannot read it, or when it was changed
        since the run began."""
        return spec_of(self)

    def checkpoints(self) -> list[int]:
        """The sequences per member at every checkpoint that the run has, oldest first. The last one of a run that is
        not complete may be a rolling checkpoint, which a later one replaces.

        >>> eb.Run("runs/tiny").checkpoints()
        [0, 64]
        """
        return sorted(manifest.sequences for _, manifest in self.manifests())

    def model(self, member: int = 0, at: int | np.integer | Literal["best"] | None = None) -> tuple[Model, Params]:
        """The model of the run, and the parameters of one member: what `eb.record`, `eb.answer`, `eb.measure` take.

        A count between two checkpoints is refused, and the nearest checkpoint named: parameters of another time than
        was asked for would not look wrong.

        Args:
            member: the member's place in the run, from 0.
            at: the sequences per member of a checkpoint (one of `checkpoints()`), None for the newest, or "best" for
                the parameters with which the member had its best value of `spec.keep_best`.

        Raises:
            InputError: there is no such member or checkpoint, the run keeps no best models, the spec is none that can
                be run or its models do not fit into memory, or the checkpoint is damaged or does not hold what the
                spec needs (names, shapes, types).

        >>> run = eb.Run("runs/tiny")
        >>> model, params = run.model(member=0, at=64)
        >>> model.apply(params, eb.prompts_of(run.spec, "icl", 5)).shape  # [prompt, label]
        (5, 66)
        >>> model, params = run.model(at="best")
        >>> run.model(at=60)
        Traceback (most recent call last):
        ebbtide.errors.InputError: at = 60: the nearest checkpoint is at 64 sequences (there are 0, 64)
        """
        spec = loadable_spec_of(self)
        require(0 <= member < spec.members, "member", member, f"must be from 0 to {spec.members - 1}")
        try:
            arrays = self._best(member) if at == "best" else self._at(at)
        except DamagedError as error:
            raise InputError("run", str(self.path), str(error)) from error
        return spec.model, params_of(spec, arrays, member, str(self.path))

    def _at(self, at: Any) -> dict[str, np.ndarray]:
        """The parameters [member, ...] at a checkpoint."""
        kept = {manifest.sequences: manifest for _, manifest in self.manifests()}
        require(len(kept) > 0, "run", str(self.path), "has no checkpoint yet")
        count = max(kept) if at is None else at
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        require(whole, "at", at, "must be a number of sequences, None (the newest checkpoint) or 'best'")
        if count not in kept:
            close = min(kept, key=lambda one: abs(one - int(count)))
            listed = ", ".join(str(one) for one in sorted(kept))
            raise InputError("at", at, f"the nearest checkpoint is at {close} sequences (there are {listed})")
        manifest = kept[int(count)]
        self.check_belongs(manifest)
        return parameters(self, manifest)

    def _best(self, member: int) -> dict[str, np.ndarray]:
        """The parameters [member, ...] of the best models."""
        evaluator = self.spec.best_evaluator()
        require(evaluator is not None, "at", "best", "this run keeps no best models (its spec's keep_best)")
        best = self.best()
        never = f"no evaluation of member {member} by {evaluator} was a number"
        require(bool(best["sequences"][member] >= 0), "at", "best", never)
        return {name: array for name, array in best.items() if name not in WATCHED}

    def summary(self) -> dict[str, np.ndarray]:
        r"""Learning curves as a few numbers per member: a table of equal columns [member] by name, as data frames take
        it (`polars.DataFrame(run.summary())`).

        The curves c are smoothed over three evaluations. `icl_peak` is $\max_t c(t)$ of the evaluator `icl` at
        `peak_sequences`, `icl_final` its value at the end, `transience` their difference; `half_decay_sequences`: the
        first evaluation after the peak with $c \le (\mathrm{peak} + \mathrm{chance}) / 2$; `crossover_sequences`: the
        first one after the peak at which `iwl` or `ciwl` exceeds `icl`; X`_at_peak`, X`_peak` and X`_final` for every
        other evaluator X (accuracies from 0 to 1; for functions the share that is explained), and the same of
        `train_loss` (nats, for functions squared error); `diverged_sequences`: where the member diverged. Places are in
        sequences, nan where there is none. `member` counts from 0, and every field that `spec.vary` names is a column.

        Returns:
            Arrays [member] by name, without the numbers for which the run has no evaluator.

        Raises:
            InputError: nothing was evaluated yet.
            DamagedError: a committed segment does not verify.

        >>> summary = eb.Run("runs/tiny").summary()
        >>> list(summary)[:4], summary["icl_final"].shape
        (['member', 'icl_peak', 'icl_final', 'peak_sequences'], (1,))
        >>> bool(summary["icl_peak"][0] >= summary["icl_final"][0])
        True
        """
        curves, spec = self.metrics(), self.header.spec
        columns: dict[str, np.ndarray] = {"member": np.arange(spec["members"])}
        columns |= {name: np.asarray(values) for name, values in (spec.get("vary") or {}).items()}
        return columns | known_scalars(curves, self.chance())

    def plot(
        self,
        y: str | Sequence[str] | None = None,
        *,
        x: str = "sequences",
        log: bool = False,
        size: tuple[float, float] | None = None,
        title: str = "",
    ) -> Any:
        """The curves as a `matplotlib.figure.Figure`, which a notebook shows and `savefig` writes.

        Thin lines are members (bands beyond 50), thick ones their median, a band is its 95 % interval (of 6 members and
        more), dotted lines are chance levels. With an evaluator as `x` it is a phase portrait: one path for each member
        through training, from the ring to the disc.

        Args:
            y: names in `metrics()`: evaluators (their headline metric), `evaluator/metric`, `train_loss`. There is one
                panel for each unit. None: the evaluators in panels "from the context" and "from the weights", and the
                loss; for runs on functions all evaluators.
            x: "sequences" (per member), "steps", or the name of a curve.
            log: a logarithmic x axis; one of sequences or steps is linear up to its first evaluation.
            size: (width, height) in inches; None: by the number of panels.
            title: a line above the figure.

        Raises:
            InputError: the run has no such curve, `size` is none, or nothing was evaluated yet.
            DamagedError: a committed segment does not verify.

        >>> run = eb.Run("runs/tiny")
        >>> [panel.get_ylabel() for panel in run.plot(["icl", "train_loss"]).axes]
        ['accuracy', 'loss (nats)']
        >>> run.plot("icl", x="train_loss", size=(5, 4)).get_size_inches().tolist()
        [5.0, 4.0]
        >>> run.plot("icll")
        Traceback (most recent call last):
        ebbtide.errors.InputError: y = 'icll': must be a curve of the run, ... (did you mean 'icl'?)
        """
        from ebbtide.report.plot import plot_run  # loads matplotlib

        return plot_run(self, y, x, log, size, title)

    def to_polars(self) -> Any:
        """Every evaluation as a tidy `polars.DataFrame` (needs the extra `export`), as `ebbtide export` writes it.

        Columns: `member`, `sequences` (per member), `steps`, `evaluator`, `metric`, `value`, `error` (the standard
        error over the evaluation sequences). The training loss has the evaluator `train` and the metric
        `training_loss`.

        Raises:
            InputError: polars is not installed, or nothing was evaluated yet.
            DamagedError: a committed segment does not verify.

        >>> frame = eb.Run("runs/tiny").to_polars()
        >>> frame.columns
        ['member', 'sequences', 'steps', 'evaluator', 'metric', 'value', 'error']
        >>> frame["metric"].unique().sort().to_list()[:2]
        ['accuracy', 'context_mass']
        """
        return as_frame(list(COLUMNS), [dict(zip(COLUMNS, row, strict=True)) for row in tidy_rows(self)])

    def _repr_html_(self) -> str:
        return html_of(self)

    def to_xarray(self) -> Any:
        """The curves with named axes, as an `xarray.Dataset` (needs the extra `export`).

        `value` and `error` (the standard error over the evaluation sequences) [member, sequences, evaluator, metric],
        `train_loss` [member, sequences] (nats or squared error; nan at 0). Coordinates: `sequences` per member and the
        `steps` there, the names of evaluators and metrics, for every evaluator its `headline` metric and that metric's
        `chance` level, and for every member its values of the fields that `spec.vary` names.

        Raises:
            InputError: xarray is not installed, or nothing was evaluated yet.

        >>> curves = eb.Run("runs/tiny").to_xarray()
        >>> dict(curves.sizes)
        {'member': 1, 'sequences': 2, 'evaluator': 1, 'metric': 5}
        >>> curves.value.sel(evaluator="icl", metric="accuracy").mean("member").dims
        ('sequences',)
        """
        try:
            import xarray
        except ModuleNotFoundError as error:
            raise InputError("run", "xarray", "needs xarray: pip install 'ebbtide[export]'") from error
        head, raw = self.header, self.arrays()
        axes = ["member", "sequences", "evaluator", "metric"]
        data = {"value": (axes, raw["values"][..., 0]), "error": (axes, raw["values"][..., 1])}
        data["train_loss"] = (axes[:2], raw["train_loss"])
        coordinates: dict[str, Any] = {
            "member": np.arange(head.spec["members"]),
            "sequences": raw["sequences"],
            "steps": ("sequences", raw["sequences"] // head.spec["batch"]),
            "evaluator": [one.name for one in head.instruments],
            "metric": head.metrics,
            "headline": ("evaluator", [one.headline for one in head.instruments]),
            "chance": ("evaluator", [np.nan if one.chance is None else one.chance for one in head.instruments]),
        }
        varied = head.spec.get("vary") or {}
        coordinates |= {name: ("member", values) for name, values in varied.items()}
        return xarray.Dataset(data, coordinates, {"digest": head.digest, **head.label})


def spec_of(run: RunFolder) -> Spec:
    """The spec of a run. Raises `InputError` when this version cannot read it, it was changed, or the run is
    foreign."""
    run.check_has_models()
    spec = from_builtins(run.header.spec)
    require(spec.digest() == run.header.digest, "run", str(run.path), "run.json: spec and digest do not agree")
    return spec


def loadable_spec_of(run: RunFolder) -> Spec:
    """The spec of a run whose models are to be loaded. A folder may come from anywhere, so what training checks is
    checked again: raises `InputError` when the spec describes no run, or its models do not fit into memory."""
    spec = spec_of(run)
    try:
        check_loadable(spec)
    except InputError as error:
        raise InputError("run", str(run.path), f"run.json: its spec cannot be used: {error}") from error
    return spec


def params_of(spec: Spec, arrays: dict[str, np.ndarray], member: int, where: str) -> Params:
    """The parameters of one member, from those [member, ...] of a checkpoint by dotted name. Raises `InputError`, with
    the run `where` they were found, unless they are what the spec needs."""
    try:
        check_parameters(spec, arrays)
    except DamagedError as error:
        raise InputError("run", where, str(error)) from error
    template = jax.eval_shape(lambda key: spec.model.init(key, **spec.shape()), jax.random.key(0))
    return from_dotted(template, {name: array[member] for name, array in arrays.items()})


def model_at(
    run: RunFolder | str | os.PathLike[str], member: int = 0, sequences: int | None = None
) -> tuple[Spec, Params]:
    """The spec of a run, and the parameters of one member at a checkpoint: what `eb.score` takes.

    Args:
        run: a run, or the path of its folder.
        member: the member's place in the run.
        sequences: the sequences per member of a checkpoint; None: the newest.

    Raises:
        InputError: there is no such run, checkpoint or member (see `Run.model`).

    >>> spec, params = eb.model_at("runs/tiny")
    >>> sorted(params)
    ['blocks', 'exemplar', 'label', 'norm', 'position', 'readout']
    """
    opened = Run(run.path if isinstance(run, RunFolder) else run)
    return opened.spec, opened.model(member, sequences)[1]
