"""The commands and their options."""

import argparse
from collections.abc import Iterable

from ebbtide import __version__
from ebbtide.errors import InputError, closest, one_line

RUNS = "runs"
VERBS = ("status", "collect", "figure")
"""Second words of `ebbtide sweep`."""
KERNEL_VERBS = ("status", "build")
DATA_VERBS = ("fetch", "features", "tokens", "info")
"""Second words of `ebbtide data`."""
OVERRIDES = """any field of the spec by its dotted name: --task.context 4, --source omniglot, --source FILE.npz,
--task.labels shared, --task FILE.py:CLASS, --model.width 32, --optimizer.lr 3e-4, --sequences 2.56M,
--vary '{"optimizer.lr": [1e-3]}' ...
(`ebbtide run STUDY --dry-run` prints all fields with their values)"""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="ebbtide",
        description="The lab bench for the training dynamics of in-context learning.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"ebbtide {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    def kernel(one: argparse.ArgumentParser) -> None:
        text = "auto (the compiled kernel where it serves), xla or native (default: $EBBTIDE_KERNEL, else auto)"
        one.add_argument("--kernel", metavar="NAME", help=text)

    def code(one: argparse.ArgumentParser) -> None:
        text = "a file of yours that holds the task, source or model; may be repeated"
        one.add_argument("--code", action="append", default=[], metavar="FILE", help=text)

    def layout(one: argparse.ArgumentParser) -> None:
        kernel(one)
        one.add_argument("--processes", type=int, metavar="N", help="worker processes; 0: this one (default: measured)")
        one.add_argument("--width", type=int, metavar="N", help="members side by side in a program (default: measured)")
        one.add_argument("--device", metavar="NAME", help="cpu or gpu (default: by members and kernel; it says why)")
        one.add_argument("--deterministic", action="store_true", help="refuse whatever is not repeatable bit for bit")

    studies = command("studies", "list the studies: paper, claims, presets, expected minutes")
    studies.add_argument("study", nargs="?", help="one study, with its experiments and all their claims")
    run = command("run", "run a study: train, judge its claims, draw its figure")
    run.epilog = f"FIELD is {OVERRIDES}; of an experiment it holds for every arm"
    run.usage = (
        "ebbtide run STUDY [--preset NAME] [--out DIR] [--check] [--processes N] [--width N]\n"
        "                   [--device NAME] [--kernel NAME] [--deterministic] [--dry-run]\n"
        "                   [--FIELD VALUE ...]\n"
        "       ebbtide run STUDY --experiment NAME [--preset NAME] [--out DIR] [--check]\n"
        "                   [--executor NAME] [--jobs N] [--kernel NAME] [--dry-run] [--FIELD VALUE ...]"
    )
    run.add_argument("study", help="the study's name (see `ebbtide studies`), or a Python file that holds one")
    run.add_argument(
        "--experiment", metavar="NAME", help="one of the study's experiments (see `ebbtide studies STUDY`)"
    )
    run.add_argument("--executor", default="local", help="with --experiment: local, slurm, slurm-local or ray")
    run.add_argument(
        "--jobs", type=int, metavar="N", help="with --experiment: tasks at a time (default: as many as fit)"
    )
    run.add_argument("--preset", default="quick", help="size: quick, cpu or paper (default: quick)")
    run.add_argument("--out", help="run folder (default: runs/STUDY-PRESET-DIGEST)")
    run.add_argument("--check", action="store_true", help="exit with 1 unless every claim holds")
    layout(run)
    run.add_argument("--dry-run", action="store_true", help="print the spec and stop")
    prereg = command("prereg", "write down what a study claims, on which seeds and in which setting, before it is run")
    prereg.add_argument("study", help="the study's name, or a Python file that holds one")
    prereg.add_argument("--experiment", metavar="NAME", help="one of the study's experiments (default: the first)")
    prereg.add_argument("--preset", default="quick", help="size: quick, cpu or paper (default: quick)")
    prereg.add_argument("--out", metavar="DIR", help="folder (default: where verdicts of the study look for it)")
    listing = command("ls", "list the runs in a folder")
    listing.add_argument("folder", nargs="?", default=RUNS, help=f"default: {RUNS}")
    show = command("show", "show a run: spec, curves, verdict")
    show.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    show.add_argument("--figure", metavar="FILE", help="draw the curves to FILE (.png or .svg)")
    show.add_argument("--log", action="store_true", help="with --figure: logarithmic axis of sequences")
    resume = command("resume", "continue an interrupted run")
    resume.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    layout(resume)
    resume.add_argument(
        "--study", metavar="FILE", help="the Python file of the run's study, where it is a study of your own"
    )
    code(resume)
    resume.add_argument("--check", action="store_true", help="exit with 1 unless every claim holds")
    convert = command("convert", "write a run whose members hold a context in their weights, exactly")
    convert.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    convert.add_argument(
        "--context",
        metavar="EVALUATOR:INDEX|FILE",
        help="the context: of a prompt of the run's evaluators (icl:0), or a .safetensors file",
    )
    convert.add_argument("--out", required=True, metavar="RUN", help="folder of the new run")
    convert.add_argument("--at", type=int, metavar="N", help="sequences of the checkpoint (default: the newest)")
    convert.add_argument(
        "--undo", action="store_true", help="take the context out of the biases again (default: the one of this run)"
    )
    convert.add_argument(
        "--approximate", type=int, default=0, metavar="N", help="softmax attention: N random features of each head"
    )
    code(convert)
    imported = command("import", "read the curves of another program into a run folder, which has no models")
    imported.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="FILE",
        help="HDF5 log (.h5), a folder of member_*/log.h5, or .csv",
    )
    imported.add_argument("--out", required=True, metavar="FOLDER", help="new run folder")
    export = command("export", "write a run's curves as one tidy table")
    export.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    export.add_argument("--format", default="csv", help="csv, parquet or json (default: csv)")
    export.add_argument("--out", required=True, help="file to write")
    follow = command("follow", "send a run's evaluations and events to an experiment tracker, while it trains or later")
    follow.add_argument("run", help=f"run or sweep folder, or its name inside {RUNS}/; it need not be there yet")
    follow.add_argument("--to", required=True, metavar="TRACKER", help="wandb, trackio or tensorboard")
    follow.add_argument("--project", metavar="NAME", help="the tracker's project (default: ebbtide)")
    follow.add_argument("--out", metavar="DIR", help="folder for what it keeps here (default: the tracker's own)")
    follow.add_argument(
        "--per", default="member", metavar="member|cell", help="a series for each member, or for each configuration"
    )
    follow.add_argument(
        "--alert", metavar="COMMAND", help="program that is given every event as a line of JSON on its standard input"
    )
    follow.add_argument("--once", action="store_true", help="send what is there now, and end")
    report = command("report", "write one self-contained HTML page about runs, sweeps, contests or a whole study")
    report.add_argument("what", nargs="+", help="study, folder of a run, sweep or contest, or its name inside --runs")
    report.add_argument(
        "--runs", default=RUNS, metavar="DIR", help=f"folder that holds a study's runs (default: {RUNS})"
    )
    report.add_argument("--out", required=True, help="file to write (.html)")
    dashboard = command("dashboard", "show a folder of runs, live, as a page in the browser; changes nothing")
    dashboard.add_argument("--root", default=RUNS, metavar="DIR", help=f"folder of runs and sweeps (default: {RUNS})")
    dashboard.add_argument("--port", type=int, default=8642, metavar="N", help="port (default: 8642; 0: a free one)")
    dashboard.add_argument(
        "--host", metavar="ADDRESS", help="another address than this machine's own (127.0.0.1); needs --token"
    )
    dashboard.add_argument(
        "--token", nargs="?", const="", metavar="TEXT", help="ask every browser for a token; without TEXT one is made"
    )
    fsck = command("fsck", "check every file of a run and say what a resume would do; changes nothing")
    fsck.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    sweep = command("sweep", "train a grid of members, here or on a cluster; finished members are not trained again")
    sweep.usage = (
        "ebbtide sweep FILE [--out DIR] [--executor NAME] [--jobs N] [--retry] [--dry-run [--measure]]\n"
        "       ebbtide sweep status DIR | collect DIR ... | figure DIR ..."
    )
    sweep.add_argument("file", help="sweep file (.toml or .json), or the folder of a sweep that is to be continued")
    sweep.add_argument("--out", help=f"folder of the sweep (default: {RUNS}/sweep-NAME)")
    sweep.add_argument("--executor", default="local", help="local, slurm, slurm-local or ray (default: local)")
    sweep.add_argument("--jobs", type=int, metavar="N", help="tasks at a time (default: as many as fit)")
    kernel(sweep)
    code(sweep)
    sweep.add_argument("--retry", action="store_true", help="try again the tasks that were set aside after failures")
    sweep.add_argument("--dry-run", action="store_true", help="print the plan (groups, tasks, time, memory) and stop")
    sweep.add_argument("--measure", action="store_true", help="with --dry-run: train each unknown shape for seconds")
    status = command("sweep status", "list the tasks of a sweep: done, running, waiting, set aside")
    status.add_argument("folder", help="folder of the sweep")
    collect = command("sweep collect", "write a sweep's results as one tidy table, one row a member")
    collect.add_argument("folder", help="folder of the sweep")
    collect.add_argument("--format", default="csv", help="csv, parquet or json (default: csv)")
    collect.add_argument("--out", required=True, help="file to write")
    collect.add_argument("--curves", action="store_true", help="every evaluation of every member in place of a summary")
    figure = command("sweep figure", "draw a sweep: a phase diagram of two axes, or curves by an axis")
    figure.add_argument("folder", help="folder of the sweep")
    figure.add_argument("--phase", nargs=2, metavar=("X", "Y"), help="two axes by their fields")
    figure.add_argument("--value", default="transience", help="with --phase: the scalar (default: transience)")
    figure.add_argument("--curve", metavar="NAME", help="an evaluator, or train_loss; needs --by")
    figure.add_argument("--by", metavar="AXIS", help="with --curve: the axis whose values get different colours")
    figure.add_argument("--split", metavar="AXIS", help="with --curve: the axis that has a panel for each value")
    figure.add_argument(
        "--where", action="append", default=[], metavar="AXIS=VALUE", help="value of another axis, which is held fixed"
    )
    figure.add_argument("--out", required=True, help="file to write (.png or .svg)")
    contest = command("contest", "fit theories to a part of a sweep, and score them on what is held out")
    contest.add_argument("sweep", help=f"folder of the sweep, or its name inside {RUNS}/")
    contest.add_argument("--out", metavar="DIR", help=f"folder of the contest (default: {RUNS}/contest-NAME)")
    contest.add_argument(
        "--split", metavar="NAME[,NAME]", help="later, elsewhere, early, seeds: what is held out (default: all)"
    )
    contest.add_argument("--axis", metavar="FIELD", help="axis of the split elsewhere (default: the only one)")
    contest.add_argument(
        "--theories",
        metavar="NAME|FILE.py[,...]",
        help="theories by name, or Python files that hold theories of yours (default: all of ebbtide's)",
    )
    contest.add_argument(
        "--resamples", type=int, default=100, metavar="N", help="how often members are resampled (default: 100)"
    )
    contest.add_argument(
        "--trust",
        type=int,
        nargs="?",
        const=100,
        metavar="N",
        help="ask instead whether curves drawn from each theory are named after it, N times (default: 100)",
    )
    data = command("data", "get, make and list data files: Omniglot, its features, classes of tokens")
    data.usage = "ebbtide data fetch omniglot | features | tokens | info   (each has --help)"
    data.add_argument("verb", choices=DATA_VERBS, help="what to do")
    fetch = command("data fetch", "download a data set and pack it into one file")
    fetch.add_argument("dataset", help="omniglot")
    fetch.add_argument(
        "--from", dest="source", metavar="FOLDER", help="folder that holds the data set, instead of downloading it"
    )
    features = command("data features", "run an encoder over Omniglot; an interrupted call is continued")
    features.add_argument("--encoder", required=True, metavar="NAME", help="hog, efficientnet-lite0 or resnet18")
    features.add_argument(
        "--augment", action="store_true", help="eight classes for each character: rotated and mirrored"
    )
    features.add_argument("--side", type=int, metavar="N", help="edge of the encoder's image (default: its own)")
    features.add_argument("--pca", type=int, metavar="N", help="also a file reduced to N principal components")
    features.add_argument("--weights", metavar="FILE", help="the network's weights (.safetensors or .pth)")
    tokens = command("data tokens", "cluster a language model's token embeddings into classes")
    tokens.add_argument(
        "--from", dest="source", required=True, metavar="FILE", help="a .safetensors file, or wordllama"
    )
    tokens.add_argument(
        "--array",
        metavar="NAME",
        help="name of the embedding matrix in the file (default: recognised by its usual names)",
    )
    tokens.add_argument("--classes", type=int, default=1600, metavar="N", help="classes (default: 1600)")
    tokens.add_argument("--exemplars", type=int, default=10, metavar="N", help="tokens of a class (default: 10)")
    tokens.add_argument("--clusters", type=int, metavar="N", help="clusters of k-means (default: 5/4 of the classes)")
    tokens.add_argument(
        "--skip", type=int, default=259, metavar="N", help="number of first ids that are no words (default: 259)"
    )
    tokens.add_argument("--closest", type=float, default=-1.0, metavar="COSINE", help="smallest cosine to the centroid")
    tokens.add_argument("--seed", type=int, default=0, metavar="N", help="seed of k-means (default: 0)")
    info = command("data info", "list the data files on this machine, or the contents of a file or source")
    info.add_argument("what", nargs="?", metavar="omniglot|FILE|SOURCE", help="default: the data folder")
    info.add_argument("--figure", metavar="FILE", help="draw characters of Omniglot to FILE (.png or .svg)")
    info.add_argument("--show", default="drawers", help="with --figure: drawers, transforms or released_script")
    probe = command("probe", "measure the attention heads of a run's models at every kept checkpoint")
    probe.add_argument("run", help=f"run folder, or its name inside {RUNS}/")
    probe.add_argument(
        "--measure",
        required=True,
        metavar="NAME[,NAME]",
        help="induction_strength, previous_token ... (an unknown name lists all)",
    )
    code(probe)
    probe.add_argument(
        "--on", default="icl", metavar="EVALUATOR", help="evaluator whose prompts are used (default: icl)"
    )
    probe.add_argument("--sequences", type=int, default=500, metavar="N", help="number of prompts (default: 500)")
    probe.add_argument(
        "--out", metavar="DIR", help="folder for numbers and figures (default: probes/ in the run's folder)"
    )
    compiled = command(
        "kernel", "the compiled kernel for the CPU: show which studies it trains here and why, or build it"
    )
    compiled.usage = "ebbtide kernel status | build"
    compiled.add_argument("verb", choices=KERNEL_VERBS, help="what to do")
    command("kernel status", "show whether XLA or the compiled kernel trains each study here, and why")
    command("kernel build", "build the compiled kernel for this machine, again if it is there")
    command("verify", "exact checks without training: oracles, samplers, loss at initialisation ...")
    bench = command("bench", "measure this machine's limits, and the shares of them that ebbtide and plain code reach")
    bench.add_argument("--config", metavar="NAME", help="2L, 2L-shared, 2L-shared-wide or 12L (default: all)")
    bench.add_argument(
        "--quick", action="store_true", help="shorter measurements: under a minute for each configuration"
    )
    bench.add_argument("--json", metavar="FILE", help="write machine, rows and targets to FILE")
    return top


def overrides(rest: list[str]) -> list[tuple[str, str]]:
    """`--name value`, `--name=value` and `--name` (true) as pairs, in order."""
    pairs: list[tuple[str, str]] = []
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise InputError("argument", word, "expected --FIELD VALUE (see ebbtide run --help)")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        pairs.append((name, value))
    return pairs


class OptionError(InputError):
    """A word that begins like an option and is none; the message is the word and the option closest to it."""

    def __init__(self, word: str, allowed: str):
        super().__init__(word, None, allowed)
        self.args = (f"{one_line(word)}: {allowed}",)


def option_names(options: argparse.Namespace) -> list[str]:
    """Names of the options of the command that was parsed, without dashes in front."""
    return [name.replace("_", "-") for name in vars(options) if name not in ("command", "fields", "study")]


def check_names(options: argparse.Namespace, fields: Iterable[str]) -> None:
    """Raises `OptionError` for a name in `options.fields` that is no field, and closer to one of the command's options
    than to any field. Names of other fields that do not exist are refused where the fields are assigned."""
    from ebbtide.training.common_names import field_called

    own = option_names(options)
    known = [*own, *fields]
    for name, _ in options.fields:
        likely = closest(name, known)
        if "." not in name and name not in known and likely in own and not field_called(name):
            raise OptionError(f"--{name}", f"no such option or field; did you mean --{likely}?")
