"""Experiments of the transience paper on where exemplars come from: images, frozen features, token embeddings."""

from ebbtide.papers.transience.claims import RISES, TENTH, rises, transience_claims
from ebbtide.papers.transience.models import ACCELERATOR, PAPER_SCALE, QUICK_SCALE, RESNET18
from ebbtide.studies.claim import above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point

GLYPHS, OMNIGLOT = "glyphs", "Omniglot features"
PIXELS, IMAGES = "glyph pixels, ResNet", "Omniglot pixels, ResNet"
EVALUATORS: Point = {"evaluators": ["train", "icl", "icl_holdout", "iwl", "ciwl", "flip"]}


def glyphs_arm(classes: int, exemplars: int, **more: str | float) -> Point:
    """Fields of an arm whose exemplars are drawn characters, with less motor noise than by default."""
    counts = {"classes": classes, "exemplars": exemplars, "holdout_classes": 64, "holdout_exemplars": 2}
    return {"source": {"type": "glyphs", "features": "pixels", "motor": 0.5, **counts, **more}}


def omniglot_arm(classes: int, exemplars: int = 15, **more: str | bool | int) -> Point:
    """Fields of an arm on frozen features of Omniglot, in a class order that no tuning run has seen."""
    counts = {"classes": classes, "exemplars": exemplars, "holdout_classes": 23, "holdout_exemplars": 5}
    return {"source": {"type": "omniglot", "features": "pca64", **counts, **more}}


RESNET: Point = {
    "model": {
        "type": "transformer",
        "layers": 2,
        "width": 32,
        "heads": 4,
        "encoder": {"type": "resnet", "stem": 3, "stem_channels": 16, "channels": [16, 32]},
    }
}

JOINT: Point = {
    **omniglot_arm(1600, 20, features="pixels", standardise="none", holdout_exemplars=0),
    "task.exemplar_draw": "without_replacement",
    "task.reserved_labels": 23,
    "model.encoder": "resnet",
    "model.attention_bias": True,
    "optimizer.schedule": "warmup_inverse_sqrt",
}
"""The fields in which the public code of Chan et al. 2022 differs from that for frozen features. The reserved labels
are those of its held-out classes."""

MAIN = Experiment(
    name="main",
    question="Does ICL rise and fall, whatever the exemplars are?",
    section="section 3, Fig. 1",
    claims=(
        *(claim for arm in (GLYPHS, OMNIGLOT, IMAGES) for claim in transience_claims(arm)),
        rises("pixels", f"{PIXELS}: {RISES}", PIXELS),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={GLYPHS: glyphs_arm(384, 5, features="pca64", motor=0.4)},
                base=EVALUATORS | {"sequences": 5_120_000},
            ),
            5,
            "glyphs: 384 classes of 5 drawings, 64 principal components of their pixels, twice the study's sequences; "
            f"{QUICK_SCALE}",
        ),
        "cpu": Preset(
            Comparison(round=1, arms={OMNIGLOT: omniglot_arm(192)}, base=EVALUATORS | {"sequences": 5_120_000}),
            6,
            f"192 characters of 15 drawings as frozen features (64-d); {QUICK_SCALE}",
            needs="Omniglot features",
        ),
        "pixels": Preset(
            Comparison(
                round=1,
                arms={PIXELS: glyphs_arm(256, 5) | RESNET},
                base=EVALUATORS | {"sequences": 1_280_000, "schedule.evaluations": 21},
            ),
            None,
            f"256 glyphs of 5 drawings, 28 pixels, ResNet of 3,920 parameters trained jointly; {QUICK_SCALE}",
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={IMAGES: JOINT},
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=2,
            ),
            None,
            "the original's sizes, trained as by the public code of Chan et al. 2022 "
            "(github.com/google-deepmind/emergent_in_context_learning): Omniglot at 105 pixels and a ResNet trained "
            "jointly, no query a copy of a context exemplar, outputs for held-out classes too, 4,000 steps of warm-up, "
            "then the inverse square root",
            needs="Omniglot (ebbtide data fetch omniglot)",
        ),
    },
    shows=("icl", "icl_holdout", "iwl", "ciwl", "flip"),
)

_WORDS, _FEW = "1,500 clusters of 10 tokens", "3,000 clusters of 5 tokens"
TOKENS = Experiment(
    name="tokens",
    question="Does ICL rise and fall on a language model's token embeddings?",
    section="section 4.3: ICL is transient on LLaMA's token embeddings",
    claims=(
        above("rises", "10 tokens a class: ICL rises", "section 4.3", "icl_peak", _WORDS, 0.75),
        above("falls", "and falls", "section 4.3", "transience", _WORDS, TENTH),
        above("rises too", "5 tokens a class: ICL rises", "section 4.3", "icl_peak", _FEW, 0.75),
    ),
    presets={
        "cpu": Preset(
            Comparison(
                round=1,
                arms={
                    _WORDS: {"source": {"type": "tokens", "classes": 1500, "holdout_classes": 100}},
                    _FEW: {
                        "source": {
                            "type": "tokens",
                            "file_classes": 3200,
                            "file_exemplars": 5,
                            "classes": 3000,
                            "exemplars": 5,
                            "holdout_classes": 100,
                        }
                    },
                },
                base=EVALUATORS | {"sequences": 7_680_000},
            ),
            21,
            f"WordLlama's 256-d embeddings of LLaMA-2's vocabulary in place of LLaMA's; {QUICK_SCALE}",
            needs="token embeddings (ebbtide data tokens)",
        ),
    },
)

AS_STORED = {"features": "resnet18", "standardise": "none"}
_SOME, _ALL, _EIGHT = "192 classes", "1,600 classes", "12,800 classes"
_ALL_LONG, _EIGHT_LONG = (f"{arm}, 1.6e9 sequences" for arm in (_ALL, _EIGHT))
"""The same for as long as in the paper: only there can the fall with so many classes be asked for."""
FEATURES = Experiment(
    name="features",
    question="Is transience an artefact of the jointly trained encoder?",
    section="appendix: frozen ResNet features of Omniglot, 1,600 and 12,800 classes",
    claims=(
        above("rises", "frozen features: ICL rises", "appendix", "icl_peak", _SOME, 0.75),
        above("falls", "and falls", "appendix", "transience", _SOME, TENTH),
        above("rises too", "1,600 classes: ICL rises", "appendix", "icl_peak", _ALL, 0.75),
        larger("later", "more classes keep more", "section 4.2", "icl_final", _ALL, _SOME, TENTH),
        above("rises at 12,800", "12,800 classes: ICL rises", "appendix", "icl_peak", _EIGHT, 0.75),
        *(
            claim
            for arm in (_ALL_LONG, _EIGHT_LONG)
            for claim in (
                above(f"{arm} rises", f"{arm}: ICL rises", "appendix", "icl_peak", arm, 0.75),
                above(f"{arm} falls", "and falls", "appendix", "transience", arm, TENTH),
            )
        ),
    ),
    presets={
        "cpu": Preset(
            Comparison(
                round=1,
                arms={_SOME: omniglot_arm(192), _ALL: omniglot_arm(1600)},
                base=EVALUATORS | {"sequences": 5_120_000},
            ),
            18,
            f"EfficientNet features reduced to 64-d in place of ResNet-18's 512-d; {QUICK_SCALE}",
            needs="Omniglot features",
        ),
        "transforms": Preset(
            Comparison(
                round=1,
                arms={
                    _ALL: omniglot_arm(1600, features="hog", pca=64),
                    _EIGHT: omniglot_arm(12_800, features="hog", pca=64, transforms=True, holdout_classes=184),
                },
                base=EVALUATORS | {"sequences": 5_120_000},
            ),
            None,
            f"histograms of oriented gradients reduced to 64-d in place of ResNet-18's features; {QUICK_SCALE}",
            needs="ebbtide data features --encoder hog --pca 64, without and with --augment",
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={
                    _ALL_LONG: omniglot_arm(1600, 20, holdout_exemplars=0, **AS_STORED),
                    _EIGHT_LONG: omniglot_arm(
                        12_800, 20, holdout_classes=184, holdout_exemplars=0, transforms=True, **AS_STORED
                    ),
                },
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            PAPER_SCALE,
            needs=f"{RESNET18}, without and with --augment",
        ),
    },
)

SOURCE_EXPERIMENTS = (MAIN, TOKENS, FEATURES)
