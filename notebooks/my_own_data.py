# /// script
# requires-python = ">=3.11"
# dependencies = ["ebbtide[notebook]"]
# ///
# pyright: reportUnusedExpression=false
"""My own data: from arrays of yours to a run, with counts that are said aloud.

Open it with `marimo edit notebooks/my_own_data.py`. With EBBTIDE_NOTEBOOK=small in the environment everything is so
small that it takes seconds; the numbers then say nothing.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="My own data")

with app.setup:
    import hashlib
    import os
    from pathlib import Path

    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure
    from msgspec.structs import replace

    import ebbtide as eb

    SMALL = os.environ.get("EBBTIDE_NOTEBOOK") == "small"
    RUNS = Path("runs").absolute()


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    # My own data

    What a model learns in context depends on the data: how many classes there are, how alike the examples of a class
    are, how often each is seen. Here you train on arrays of your own. ebbtide asks for one array

    `features[class, exemplar, feature]`

    of numbers: for every class the same number of exemplars, each a vector. Vectors may be anything: pixels, embeddings
    of a network, spectra, word vectors. No images are decoded and no labels are read: the *class* is the first axis,
    and which label a class gets is a matter of the task.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 1. Flat data: `X` and `y`

    Most data come as a table instead: `X[row, feature]`, and `y[row]` says to which class a row belongs. To use yours,
    name an `.npz` file with the arrays `X` and `y` below. Without one, a data set is made up: "spectra" with four
    peaks, whose places and heights belong to the class; every measurement moves the peaks, scales them
    and adds noise; and, as in real data, some classes were measured more often than others.
    """)
    return


@app.cell
def _():
    DATA: str | None = None  # "mine.npz", with the arrays X and y
    return (DATA,)


@app.cell
def _(DATA):
    def make_spectra(classes, bins=48, seed=0):
        """Rows X [row, bin] and their classes y: words, in random order, between 3 and 14 rows each."""
        rng = np.random.default_rng(seed)
        place, height = rng.uniform(4, bins - 4, (classes, 4)), rng.uniform(0.5, 1.5, (classes, 4))
        y = np.repeat(np.arange(classes), rng.integers(3, 15, classes))
        distance = np.arange(bins) - (place[y] + rng.normal(0, 1.0, (len(y), 4)))[..., None]
        heights = height[y] * np.exp(rng.normal(0, 0.25, (len(y), 4)))
        X = (heights[..., None] * np.exp(-0.5 * (distance / 1.6) ** 2)).sum(1)
        order = rng.permutation(len(y))
        return (X + rng.normal(0, 0.3, X.shape))[order], np.array([f"substance {c}" for c in y])[order]

    if DATA:
        with np.load(DATA, allow_pickle=False) as _file:
            X, y = _file["X"], _file["y"]
    else:
        X, y = make_spectra(classes=40 if SMALL else 420)
    mo.md(f"`X` has {X.shape[0]:,} rows of {X.shape[1]} features. `y` begins with {', '.join(map(str, y[:3]))}.")
    return X, y


@app.cell(hide_code=True)
def _(X, y):
    _names, _counts = np.unique(y, return_counts=True)
    _figure = Figure(figsize=(9, 2.6), layout="constrained")
    _left, _right = _figure.subplots(1, 2)
    for _name, _colour in zip(_names[:3], ("#0072B2", "#D55E00", "#009E73"), strict=False):
        for _row in X[y == _name][:4]:
            _left.plot(_row, color=_colour, lw=0.8)
    _left.set_title("up to four rows of three classes", fontsize=10)
    _left.set_xlabel("feature")
    _right.hist(_counts, bins=np.arange(_counts.min(), _counts.max() + 2) - 0.5, color="#9ecae1", edgecolor="white")
    _right.set_title("how many rows a class has", fontsize=10)
    _right.set_xlabel("rows")
    _right.set_ylabel("classes")
    _figure
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 2. Group the rows into classes

    The array needs equally many exemplars for every class. So a class with fewer rows must go, and of a class with more
    the surplus rows go. How many exemplars do you ask for? Few keep many classes; many make each class harder to learn
    by heart. Move the slider and read what is lost: a data set should never shrink in silence.
    """)
    return


@app.cell(hide_code=True)
def _(y):
    _counts = np.unique(y, return_counts=True)[1]
    each = mo.ui.slider(
        2,
        max(int(_counts.max()), 3),
        value=min(8, max(int(_counts.max()), 3)),
        label="exemplars of each class",
        show_value=True,
    )
    each
    return (each,)


@app.cell
def _(X, each, y):
    def group(X, y, each):
        """Features [class, exemplar, feature] and the classes' names: the first `each` rows of every class that has so
        many."""
        names, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
        enough = np.flatnonzero(counts >= each)
        rows = [np.flatnonzero(inverse == c)[:each] for c in enough]
        return X[np.array(rows, int).reshape(-1, each)].astype(np.float32), names[enough]

    features, names = group(X, y, each.value)
    return features, names


@app.cell(hide_code=True)
def _(X, each, features, names, y):
    _all = len(np.unique(y))
    _left = len(X) - len(names) * each.value
    mo.md(f"""
    With {each.value} exemplars a class: **{len(names):,} of {_all:,} classes** stay, with
    {features.shape[0] * features.shape[1]:,} of {len(X):,} rows. {_all - len(names):,} classes have fewer than
    {each.value} rows; {_left:,} rows are left out in all.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 3. A source: what is trained on, and what is held out

    The array goes into a file, and `eb.Features` names the file and the counts. Two things are held out of training:
    some *classes* (can the model use its context for classes that it never saw?) and of every class some *exemplars*.
    Held-out ones are taken from the end, so they stay the same when you train on more or fewer classes. By default
    every feature is standardised, with the mean and the deviation of what is trained on alone.
    """)
    return


@app.cell
def _(features, names):
    RUNS.mkdir(exist_ok=True)
    content = hashlib.sha256(features.tobytes()).hexdigest()[:8]  # other data: another file, and so another run
    file = RUNS / f"my-own-data-{content}.npz"
    np.savez(file, features=features, names=names)

    classes, exemplars, _ = features.shape
    held_classes, held_exemplars = classes // 5, exemplars // 4
    source = eb.Features(
        path=str(file),
        array="features",
        classes=classes - held_classes,
        exemplars=exemplars - held_exemplars,
        holdout_classes=held_classes,
        holdout_exemplars=held_exemplars,
    )
    source.check_data()
    return file, source


@app.cell(hide_code=True)
def _(source):
    _sizes, _words = source.sizes(), "nothing"
    try:
        replace(source, classes=source.classes + 1).check_data()
    except eb.InputError as _error:
        _words = str(_error).replace(source.path, "FILE")
    mo.md(f"""
    | | classes | exemplars of each | vectors |
    |:---|---:|---:|---:|
    | trained on | {_sizes.classes:,} | {_sizes.exemplars} | {_sizes.classes * _sizes.exemplars:,} |
    | held out, of the classes trained on | {_sizes.classes:,} | {_sizes.holdout_exemplars} | {_sizes.classes * _sizes.holdout_exemplars:,} |
    | held-out classes | {_sizes.holdout_classes:,} | {_sizes.exemplars + _sizes.holdout_exemplars} | {_sizes.holdout_classes * (_sizes.exemplars + _sizes.holdout_exemplars):,} |

    Asked for more than the file holds, ebbtide does not fill up and does not repeat, it says so in one line. One class
    too many gives: `{_words}`
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 4. Train

    The same task as in [the first hour](first_hour.py): two examples with their labels, then a query. All classes share
    four labels, and a class keeps its label for ever, so that a model can read the label off the context or remember
    it.
    """)
    return


@app.cell
def _(source):
    spec = eb.Spec(
        task=eb.FewShot(context=2, burst=1, labels=eb.Shared(4), exemplar_draw="without_replacement"),
        source=source,
        model=eb.Transformer(layers=2, width=32, heads=4),
        optimizer=eb.Adam(lr=3e-3, schedule=eb.Constant(warmup=4000)),
        batch=16,
        sequences=1_600 if SMALL else 960_000,
        members=2 if SMALL else 4,
        schedule=eb.Schedule(evaluations=5 if SMALL else 31, checkpoints=3),
        evaluators=("train", "icl", "icl_holdout", "iwl", "iwl_exemplar", "flip"),
        evaluation_sequences=50 if SMALL else 600,
    )
    run = eb.train(spec, RUNS / f"my-own-data-{spec.digest()[:8]}", processes=0 if SMALL else None)
    return run, spec


@app.cell
def _(run):
    run.plot()
    return


@app.cell(hide_code=True)
def _(run, spec):
    table = run.summary()
    _n = spec.members
    _gap = table["icl_peak"] - table["icl_holdout_peak"]
    _new = table["iwl_final"] - table["iwl_exemplar_final"]
    _guess = run.chance()
    mo.md(f"""
    Read it in this order (medians over {_n} members; all numbers are accuracies from 0 to 1):

    1. **Is the task learned at all?** On the training distribution the members end at
       {np.median(table["train_final"]):.2f} (a guess: {_guess["train"]:.2f}).
    2. **From the context?** `icl` has its peak at {np.median(table["icl_peak"]):.2f} after
       {np.median(table["peak_sequences"]):,.0f} sequences (a guess: {_guess["icl"]:.2f}) and ends at
       {np.median(table["icl_final"]):.2f}.
    3. **Also for classes that were never trained on?** `icl_holdout` has its peak at
       {np.median(table["icl_holdout_peak"]):.2f}, a median of {np.median(_gap):.2f} below `icl`.
    4. **From the weights?** `iwl` ends at {np.median(table["iwl_final"]):.2f} (a guess: {_guess["iwl"]:.2f}).
    5. **Does it know the class, or just the vectors that it saw?** On held-out exemplars (`iwl_exemplar`) it ends at
       {np.median(table["iwl_exemplar_final"]):.2f}, {np.median(_new):.2f} less.
    6. **When both disagree, which one wins?** On `flip` the context says one label and the weights another: the members
       follow the context in {np.median(table["flip_final"]):.0%} of these prompts at the end.
    """)
    return


@app.cell
def _(run):
    run.plot(["iwl", "iwl_exemplar"], x="icl")
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    Each path is a member through training, from the ring to the disc: to the right is more ICL, upwards more IWL. Where
    the two colours part, the model knows vectors rather than classes.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 5. Take it with you

    `run.to_polars()` gives every evaluation as a tidy table, `run.to_xarray()` the same with named axes,
    `run.summary()` one row for each member. The run shows itself, with every setting and how to make it again:
    """)
    return


@app.cell
def _(run):
    run
    return


@app.cell(hide_code=True)
def _(file, source):
    mo.md(f"""
    ## 6. What to try next

    1. **Fewer exemplars, more classes**: the slider in step 2. Which way do you expect `iwl` and `icl_holdout` to go?
    2. **Is your signal there at all?** Shuffle `y` before grouping. The classes then mean nothing: what stays of `icl`,
       and why is it not the same for `iwl`?
    3. **Pixels**: `X = images.reshape(len(images), -1)`; more features than examples is fine.
    4. **A label for every class**: `labels=eb.Fixed()` in place of `eb.Shared(4)` makes the weights' road much longer.
    5. **From the command line**, with the file made here:
       `ebbtide run transience --source runs/{file.name} --source.classes {source.classes} --source.exemplars
       {source.exemplars} --source.holdout_classes {source.holdout_classes} --source.holdout_exemplars
       {source.holdout_exemplars}`
    """)
    return


if __name__ == "__main__":
    app.run()
