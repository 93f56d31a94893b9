"""The kinds of task, source, model and optimiser that a spec may have: one line for each.

What a kind must answer is written where its base is: `tasks/task.py`, `sources/bank.py`, `models/model.py`,
`training/optimizer.py`. The rest of the code asks those questions and never which kind it has.
"""

from typing import TYPE_CHECKING

from ebbtide.models.deepset import DeepSet
from ebbtide.models.one_head import OneHead
from ebbtide.models.one_layer import OneLayer
from ebbtide.models.one_matrix import OneMatrix
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.sources.chains import Chains
from ebbtide.sources.concepts import Concepts
from ebbtide.sources.features import Features
from ebbtide.sources.functions import Functions
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.mixtures import Mixtures
from ebbtide.sources.omniglot import Omniglot
from ebbtide.sources.patterns import Patterns
from ebbtide.sources.recurrences import ModularRecurrences, Recurrences
from ebbtide.sources.tokens import Tokens
from ebbtide.sources.urns import Urns
from ebbtide.sources.words import Words
from ebbtide.tasks.classification import Classification
from ebbtide.tasks.cued import Cued
from ebbtide.tasks.dynamics import Dynamics
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.parsing import Parsing
from ebbtide.tasks.pattern_pairs import PatternPairs
from ebbtide.tasks.recurrence import Recurrence
from ebbtide.tasks.regression import Regression
from ebbtide.tasks.trigger import Trigger
from ebbtide.training.custom import CustomModel, CustomSource, CustomTask
from ebbtide.training.optimizer import SGD, Adam

AnyTask = (
    FewShot | Regression | Cued | Dynamics | Classification | PatternPairs | Markov | Recurrence | Parsing | Trigger
)
AnySource = (
    Gaussian
    | Glyphs
    | Omniglot
    | Tokens
    | Features
    | Functions
    | Concepts
    | Mixtures
    | Patterns
    | Chains
    | Urns
    | Recurrences
    | ModularRecurrences
    | Words
)
AnyModel = Transformer | Recurrent | DeepSet | OneMatrix | OneLayer | OneHead
AnyOptimizer = Adam | SGD

if TYPE_CHECKING:  # structs, so that type checkers know `replace(spec.task, ...)`; users' classes are not listed
    TaskPart = AnyTask
    SourcePart = AnySource
    ModelPart = AnyModel
else:  # an object of a user's class stands in a spec as it is, and as data in JSON: see custom.py
    TaskPart = AnyTask | CustomTask
    SourcePart = AnySource | CustomSource
    ModelPart = AnyModel | CustomModel
