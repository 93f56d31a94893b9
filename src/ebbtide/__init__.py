"""ebbtide: the lab bench for the training dynamics of in-context learning.

Names are loaded on first use, so that `import ebbtide` and `ebbtide --help` load no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebbtide.errors import InputError as InputError
    from ebbtide.evaluation.evaluate import evaluate as evaluate
    from ebbtide.evaluation.fewshot_suite import FewShotSuite as FewShotSuite
    from ebbtide.mechanisms.interventions import Ablate as Ablate
    from ebbtide.mechanisms.interventions import Forbid as Forbid
    from ebbtide.mechanisms.interventions import Induction as Induction
    from ebbtide.mechanisms.interventions import KeepClean as KeepClean
    from ebbtide.mechanisms.interventions import MatchExemplars as MatchExemplars
    from ebbtide.mechanisms.interventions import PerfectCopy as PerfectCopy
    from ebbtide.mechanisms.interventions import PerfectPrevious as PerfectPrevious
    from ebbtide.mechanisms.interventions import PreviousToken as PreviousToken
    from ebbtide.mechanisms.interventions import Temperature as Temperature
    from ebbtide.mechanisms.interventions import answer as answer
    from ebbtide.mechanisms.measures import measure as measure
    from ebbtide.mechanisms.taps import points as points
    from ebbtide.mechanisms.taps import record as record
    from ebbtide.models.deepset import DeepSet as DeepSet
    from ebbtide.models.encoders import Linear as Linear
    from ebbtide.models.encoders import ResNet as ResNet
    from ebbtide.models.positions import Identical as Identical
    from ebbtide.models.positions import Learned as Learned
    from ebbtide.models.positions import NoPositions as NoPositions
    from ebbtide.models.positions import Rotary as Rotary
    from ebbtide.models.positions import Sinusoidal as Sinusoidal
    from ebbtide.models.recurrent import Recurrent as Recurrent
    from ebbtide.models.transformer import Transformer as Transformer
    from ebbtide.papers.registry import find_study as find_study
    from ebbtide.runs.folder import Run as Run
    from ebbtide.sources.concepts import Concepts as Concepts
    from ebbtide.sources.features import Features as Features
    from ebbtide.sources.functions import Functions as Functions
    from ebbtide.sources.gaussian import Gaussian as Gaussian
    from ebbtide.sources.glyphs import Glyphs as Glyphs
    from ebbtide.sources.omniglot import Omniglot as Omniglot
    from ebbtide.sources.tokens import Tokens as Tokens
    from ebbtide.studies.single_run import conclude_run as conclude_run
    from ebbtide.sweeps.axes import Axis as Axis
    from ebbtide.sweeps.driver import run_sweep as run_sweep
    from ebbtide.sweeps.results import load as load
    from ebbtide.sweeps.sweep import Resources as Resources
    from ebbtide.sweeps.sweep import Sweep as Sweep
    from ebbtide.sweeps.sweep import read_sweep as read_sweep
    from ebbtide.tasks.cued import Cued as Cued
    from ebbtide.tasks.dynamics import Dynamics as Dynamics
    from ebbtide.tasks.fewshot import FewShot as FewShot
    from ebbtide.tasks.labels import Fixed as Fixed
    from ebbtide.tasks.labels import PerSequence as PerSequence
    from ebbtide.tasks.labels import Polysemy as Polysemy
    from ebbtide.tasks.labels import Shared as Shared
    from ebbtide.tasks.regression import Regression as Regression
    from ebbtide.tasks.relabel import CopyQueryLabel as CopyQueryLabel
    from ebbtide.tasks.relabel import Flip as Flip
    from ebbtide.tasks.relabel import HoldoutPair as HoldoutPair
    from ebbtide.tasks.relabel import Keep as Keep
    from ebbtide.tasks.relabel import Pair as Pair
    from ebbtide.training.driver import Interrupted as Interrupted
    from ebbtide.training.driver import resume as resume
    from ebbtide.training.driver import train as train
    from ebbtide.training.monitor import Monitor as Monitor
    from ebbtide.training.optimizer import SGD as SGD
    from ebbtide.training.optimizer import Adam as Adam
    from ebbtide.training.optimizer import WeightDecay as WeightDecay
    from ebbtide.training.probe import model_at as model_at
    from ebbtide.training.probe import probe_run as probe_run
    from ebbtide.training.probe import prompts_of as prompts_of
    from ebbtide.training.schedule import Constant as Constant
    from ebbtide.training.schedule import Cosine as Cosine
    from ebbtide.training.schedule import Schedule as Schedule
    from ebbtide.training.schedule import WarmupInverseSqrt as WarmupInverseSqrt
    from ebbtide.training.schedule import Window as Window
    from ebbtide.training.score import score as score
    from ebbtide.training.spec import Seeds as Seeds
    from ebbtide.training.spec import Spec as Spec
    from ebbtide.training.start import Start as Start
    from ebbtide.training.team import WorkerError as WorkerError
    from ebbtide.training.watch import EarlyStopping as EarlyStopping

_HOMES = {
    "errors": ["InputError"],
    "mechanisms.interventions": [
        "Ablate",
        "Forbid",
        "Induction",
        "KeepClean",
        "MatchExemplars",
        "PerfectCopy",
        "PerfectPrevious",
        "PreviousToken",
        "Temperature",
        "answer",
    ],
    "mechanisms.measures": ["measure"],
    "training.probe": ["model_at", "probe_run", "prompts_of"],
    "mechanisms.taps": ["points", "record"],
    "evaluation.evaluate": ["evaluate"],
    "evaluation.fewshot_suite": ["FewShotSuite"],
    "models.deepset": ["DeepSet"],
    "models.encoders": ["Linear", "ResNet"],
    "models.positions": ["Identical", "Learned", "NoPositions", "Rotary", "Sinusoidal"],
    "models.recurrent": ["Recurrent"],
    "models.transformer": ["Transformer"],
    "runs.folder": ["Run"],
    "sources.concepts": ["Concepts"],
    "sources.features": ["Features"],
    "sources.functions": ["Functions"],
    "sources.gaussian": ["Gaussian"],
    "sources.glyphs": ["Glyphs"],
    "sources.omniglot": ["Omniglot"],
    "sources.tokens": ["Tokens"],
    "papers.registry": ["find_study"],
    "studies.single_run": ["conclude_run"],
    "sweeps.axes": ["Axis"],
    "sweeps.driver": ["run_sweep"],
    "sweeps.results": ["load"],
    "sweeps.sweep": ["Resources", "Sweep", "read_sweep"],
    "tasks.cued": ["Cued"],
    "tasks.dynamics": ["Dynamics"],
    "tasks.fewshot": ["FewShot"],
    "tasks.labels": ["Fixed", "PerSequence", "Polysemy", "Shared"],
    "tasks.regression": ["Regression"],
    "tasks.relabel": ["CopyQueryLabel", "Flip", "HoldoutPair", "Keep", "Pair"],
    "training.driver": ["Interrupted", "resume", "train"],
    "training.monitor": ["Monitor"],
    "training.optimizer": ["SGD", "Adam", "WeightDecay"],
    "training.schedule": ["Constant", "Cosine", "Schedule", "WarmupInverseSqrt", "Window"],
    "training.score": ["score"],
    "training.spec": ["Seeds", "Spec"],
    "training.start": ["Start"],
    "training.team": ["WorkerError"],
    "training.watch": ["EarlyStopping"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll] - names are loaded on first use


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"ebbtide.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ebbtide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
