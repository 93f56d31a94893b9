"""A study of your own: `ebbtide run examples/own_study.py`.

A question, claims that are written before the run, and the arms that answer it, which differ in one thing and train on
the same seeds. It takes some seconds; the sizes are too small to say anything about in-context learning.
"""

import ebbtide as eb
from ebbtide.studies.claim import above, larger

BASE = eb.Spec(
    task=eb.FewShot(context=2, burst=1, labels=eb.Shared(4)),
    source=eb.Gaussian(classes=64, exemplars=2, dim=8, noise=0.5, holdout_classes=8, holdout_exemplars=2),
    model=eb.Transformer(layers=1, width=16, heads=2),
    optimizer=eb.Adam(lr=3e-3),
    batch=16,
    sequences=3200,
    schedule=eb.Schedule(evaluations=5, checkpoints=2),
    evaluators=("icl", "iwl"),
    evaluation_sequences=100,
)

RATES = eb.Experiment(
    name="rates",
    question="Does a model of one layer learn faster at a larger rate?",
    section="an example",
    claims=(
        larger("faster", "the larger rate has the lower loss", "an example", "train_loss_final", "1e-4", "3e-3", 0.1),
        above("iwl", "the larger rate knows some classes", "an example", "iwl_final", "3e-3", 0.05),
    ),
    presets={
        "quick": eb.Preset(
            eb.Comparison(
                arms={"1e-4": {"optimizer.lr": 1e-4}, "3e-3": {"optimizer.lr": 3e-3}},
                base={"source.seed": 5},
                members=6,
            ),
            minutes=0.5,
            scaled="an example: one layer of width 16, 3,200 sequences",
        )
    },
    shows=("icl", "iwl"),
)

STUDY = eb.Study(
    name="own-study",
    paper="none: an example",
    question="How does a study of your own look?",
    experiments=(RATES,),
    bases={"quick": eb.Base(BASE, "one layer of width 16")},
)
