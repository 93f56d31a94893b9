"""The public names of ebbtide, each with the module that defines it: the one list of them.

Type checkers read it as the types of the package. `__init__.py` reads it to load a name on its first use.
"""

from ebbtide.errors import InputError as InputError
from ebbtide.errors import Interrupted as Interrupted
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
from ebbtide.sources.concepts import Concepts as Concepts
from ebbtide.sources.features import Features as Features
from ebbtide.sources.functions import Functions as Functions
from ebbtide.sources.gaussian import Gaussian as Gaussian
from ebbtide.sources.glyphs import Glyphs as Glyphs
from ebbtide.sources.omniglot import Omniglot as Omniglot
from ebbtide.sources.tokens import Tokens as Tokens
from ebbtide.studies.study import Claim as Claim
from ebbtide.studies.study import conclude as conclude
from ebbtide.sweeps.axes import Axis as Axis
from ebbtide.sweeps.driver import run_sweep as run_sweep
from ebbtide.sweeps.results import Results as Results
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
from ebbtide.tasks.prompt import FunctionPrompt as FunctionPrompt
from ebbtide.tasks.prompt import Prompt as Prompt
from ebbtide.tasks.regression import Regression as Regression
from ebbtide.tasks.relabel import CopyQueryLabel as CopyQueryLabel
from ebbtide.tasks.relabel import Flip as Flip
from ebbtide.tasks.relabel import HoldoutPair as HoldoutPair
from ebbtide.tasks.relabel import Keep as Keep
from ebbtide.tasks.relabel import Pair as Pair
from ebbtide.training.driver import resume as resume
from ebbtide.training.driver import train as train
from ebbtide.training.monitor import Monitor as Monitor
from ebbtide.training.optimizer import SGD as SGD
from ebbtide.training.optimizer import Adam as Adam
from ebbtide.training.optimizer import WeightDecay as WeightDecay
from ebbtide.training.probe import probe_run as probe_run
from ebbtide.training.probe import prompts_of as prompts_of
from ebbtide.training.run import Run as Run
from ebbtide.training.run import model_at as model_at
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

__all__: list[str]
__version__: str
