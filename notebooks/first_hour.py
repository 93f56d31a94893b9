# /// script
# requires-python = ">=3.11"
# dependencies = ["ebbtide[notebook]"]
# ///
# pyright: reportUnusedExpression=false
"""The first hour with ebbtide: train, watch in-context learning rise and fall, look inside, keep a verdict.

Open it with `marimo edit notebooks/first_hour.py`. With EBBTIDE_NOTEBOOK=small in the environment everything is so
small that it takes seconds; the numbers then say nothing.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="The first hour")

with app.setup:
    import os
    import textwrap
    from pathlib import Path

    import jax
    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure
    from msgspec.structs import replace

    import ebbtide as eb
    from ebbtide.evaluation.metrics import measure
    from ebbtide.evaluation.oracles import ORACLES
    from ebbtide.report.probe_figure import heads_figure
    from ebbtide.studies.claim import above

    SMALL = os.environ.get("EBBTIDE_NOTEBOOK") == "small"
    RUNS = Path("runs").absolute()


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    # The first hour

    A small transformer reads two examples with their labels, then a third example, the *query*, and has to say the
    query's label. It can do so in two ways:

    - **in-context learning (ICL)**: find the example in the context that resembles the query and copy its label;
    - **in-weights learning (IWL)**: recognise the query's class and remember which label that class has.

    In training both give the right answer. Which one does the model use, and does it stay with it? Singh et al. (2023,
    [arXiv 2311.08360](https://arxiv.org/abs/2311.08360)) found that ICL comes first and then *fades*, although the
    training loss never stops falling. In this notebook you train a few models, watch that happen, look inside them, and
    end with a verdict on claims that you wrote down before.

    Every number below is computed from the run that you train here. Nothing needs a GPU or a download.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 1. What is trained

    A *spec* is the complete description of a run. This one is the study's quick setting, made shorter. A *member* is
    one model with its own initial weights, its own classes and its own stream of prompts; a run trains several side by
    side, because one model alone is an anecdote. Time is counted in *sequences* (prompts seen by each member).
    """)
    return


@app.cell
def _():
    quick = eb.find_study("transience").bases["quick"].spec
    spec = replace(
        quick,
        members=2 if SMALL else 6,
        sequences=3_200 if SMALL else 1_280_000,
        schedule=eb.Schedule(evaluations=6 if SMALL else 41, checkpoints=6 if SMALL else 21),
        model=replace(quick.model, width=16, heads=2) if SMALL else quick.model,
        evaluation_sequences=50 if SMALL else 600,
        seeds=eb.Seeds(init=100, data=100, evaluation=100, world=100),
    )
    parts = (spec.task, spec.source, spec.model, spec.optimizer)
    mo.plain_text("\n".join(textwrap.fill(str(part), 100, subsequent_indent="    ") for part in parts))
    return (spec,)


@app.cell(hide_code=True)
def _(spec):
    mo.md(f"""
    Each prompt shows {spec.task.context} examples and asks for the label of one more. There are
    {spec.source.classes:,} classes (clouds of points in {spec.source.dim} dimensions) that share
    {spec.task.labels.count} labels, so a class always has the same label: it can be remembered. Each of the
    {spec.members} members sees {spec.sequences:,} prompts. Another {spec.source.holdout_classes} classes are never
    trained on.

    How can one tell the strategies apart, if both are right in training? By prompts on which they differ:

    | evaluator | the prompt | who answers it rightly |
    |:---|:---|:---|
    | `icl` | two classes, with the labels 0 and 1 in random order, whatever their own labels are | only who reads the context; a guess is right in half of all cases |
    | `flip` | two classes, with each other's labels | who reads the context; who remembers is wrong |
    | `iwl` | neither the query's class nor its label is in the context | only who remembers |
    | `ciwl` | the query's label is in the context, its class is not | who remembers and chooses among the labels shown |
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 2. Claims, before the run

    A *claim* is an inequality that you write down before you look: one number for each member, and a threshold. It
    **holds** if so many members are above the threshold that chance is no explanation, **fails** if so few are, and is
    otherwise **undecided**. Writing it first keeps you honest: after a look at the curves every threshold is a good
    one.
    """)
    return


@app.cell
def _(spec):
    claims = (
        eb.Claim(
            name="rises",
            statement="ICL rises well above a guess",
            source="arXiv 2311.08360, Fig. 1",
            metric="peak of icl - 0.5",
            threshold=0.2,
            estimate=lambda evidence: evidence["icl_peak"] - 0.5,
        ),
        above("falls", "then ICL falls", "arXiv 2311.08360, Fig. 1", "transience", "", 0.1),
        eb.Claim(
            name="loss",
            statement="while the training loss goes on falling",
            source="arXiv 2311.08360, section 3",
            metric="training loss at the peak - at the end (nats)",
            threshold=0.0,
            estimate=lambda evidence: evidence["train_loss_at_peak"] - evidence["train_loss_final"],
        ),
    )
    question = "Does ICL rise and fall in my own run?"
    experiment = eb.Experiment(
        name="first-hour",
        question=question,
        section="Fig. 1",
        claims=claims,
        presets={"mine": eb.Preset(eb.SingleRun("mine"), minutes=1, scaled="the quick setting, half as long")},
    )
    study = eb.Study(
        name="first-hour",
        paper="after Singh et al. 2023, arXiv 2311.08360",
        question=question,
        experiments=(experiment,),
        bases={"mine": eb.Base(spec, "the quick setting, half as long")},
    )
    return (study,)


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 3. Train and watch

    The run goes into a folder, named by what it computes. If the folder has the finished run already, it is read; if
    you stop it, the same call continues where it was. On two cores it takes about a minute, or a few where there is no
    C++ compiler.
    """)
    return


@app.cell
def _(spec):
    folder = RUNS / f"first-hour-{spec.digest()[:8]}"
    run = eb.train(spec, folder, processes=0 if SMALL else None)
    return (run,)


@app.cell
def _(run):
    run.plot()
    return


@app.cell(hide_code=True)
def _(run):
    table = run.summary()
    _n, _fell = len(table["member"]), int((table["transience"] > 0.1).sum())
    _half, _loss = table["half_decay_sequences"], table["train_loss_at_peak"] - table["train_loss_final"]
    mo.md(f"""
    The thin lines are the members, the thick one is their median, dotted lines are guesses. What this run shows:

    - ICL has its peak at a median of **{np.median(table["icl_peak"]):.2f}**, after
      {np.median(table["peak_sequences"]):,.0f} sequences, and ends at **{np.median(table["icl_final"]):.2f}**.
    - In **{_fell} of {_n}** members it loses more than 0.1 from its peak to the end; in
      {int(np.isfinite(_half).sum())} of {_n} it loses half of what it had above a guess.
    - The training loss falls from the peak to the end in **{int((_loss > 0).sum())} of {_n}** members.
    - `flip` goes from {np.median(table["flip_at_peak"]):.2f} at the peak to {np.median(table["flip_final"]):.2f}, and
      `iwl` from {np.median(table["iwl_at_peak"]):.2f} to {np.median(table["iwl_final"]):.2f}.

    Numbers like these are read off the smoothed curves by `run.summary()`: one array for each, one entry for each
    member. `run.to_polars()` and `run.to_xarray()` give every single evaluation.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    The same curves without time: one strategy against the other. Each path begins at the ring and ends at the disc. A
    path to the right means more ICL, a path upwards more IWL.
    """)
    return


@app.cell
def _(run):
    run.plot("iwl", x="icl")
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 4. One prompt, and who answers what

    Choose a member, a kind of prompt and one of its prompts. On the left are its three exemplars (each row is one, each
    column one of its coordinates). On the right is the probability of every label: first what the *oracles* say, which
    follow one strategy exactly, then what the member said at every checkpoint, from the start of training downwards.
    Where does it change its mind?
    """)
    return


@app.cell(hide_code=True)
def _(run):
    member = mo.ui.dropdown({f"{m}": m for m in range(run.spec.members)}, value="0", label="member")
    evaluator = mo.ui.dropdown(["flip", "icl", "iwl", "ciwl", "train"], value="flip", label="kind of prompt")
    index = mo.ui.number(0, 49, value=0, label="number of the prompt")
    mo.hstack([member, evaluator, index], justify="start")
    return evaluator, index, member


@app.cell
def _(evaluator, member, run):
    prompt = eb.prompts_of(run.spec, evaluator.value, 50, member=member.value)

    def probabilities(logits):
        return np.asarray(jax.nn.softmax(logits))  # [prompt, label]

    labels = run.spec.task.outputs(run.spec.source)
    oracles = {name: probabilities(ORACLES[name](prompt, labels, jax.random.key(0))) for name in ("ICL", "IWL", "CIWL")}
    answers = {}
    for _at in run.checkpoints():
        _model, _params = run.model(member.value, _at)
        answers[_at] = probabilities(_model.apply(_params, prompt))
    return answers, oracles, prompt


@app.cell(hide_code=True)
def _(answers, index, oracles, prompt):
    _b = int(index.value)
    _rows = np.stack([p[_b] for p in (*oracles.values(), *answers.values())])
    _names = [f"oracle {name}" for name in oracles] + [f"{at:,}" for at in answers]
    _shown = [int(label) for label in np.asarray(prompt.labels)[:, _b]]
    _x = np.asarray(prompt.exemplars)[:, _b]
    _far, _distance = np.abs(_x).max(), np.sqrt(((_x[:-1] - _x[-1]) ** 2).sum(1))

    _figure = Figure(figsize=(9, 1.8 + 0.2 * len(_rows)), layout="constrained")
    _left, _right = _figure.subplots(1, 2, width_ratios=[1.2, 1])
    _left.imshow(_x, aspect="auto", cmap="PuOr", vmin=-_far, vmax=_far)
    _words = [f"label {one}\ndistance {d:.1f}" for one, d in zip(_shown, _distance, strict=True)]
    _left.set_yticks(range(len(_x)), [*_words, "query"])
    _left.set_xlabel("coordinate")
    _left.set_title("the prompt; distances to the query", fontsize=10)
    _right.imshow(_rows, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    for _i, _j in np.ndindex(*_rows.shape):
        if _rows[_i, _j] >= 0.005:
            _ink = "white" if _rows[_i, _j] > 0.6 else "black"
            _right.text(_j, _i, f"{_rows[_i, _j]:.2f}", ha="center", va="center", fontsize=7, color=_ink)
    _right.axhline(len(oracles) - 0.5, color="black", lw=1)
    _right.set_yticks(range(len(_rows)), _names, fontsize=8)
    _right.set_xticks(range(_rows.shape[1]))
    _right.set_xlabel("label")
    _right.set_title(f"probability of each label (right here: {int(prompt.target[_b])})", fontsize=10)
    _figure
    return


@app.cell(hide_code=True)
def _(answers, evaluator, member, oracles, prompt):
    _context = np.asarray(prompt.labels)  # [slot, prompt]

    def choice(p):
        """The most probable label of the context, for every prompt."""
        return np.take_along_axis(_context, np.take_along_axis(p.T, _context, 0).argmax(0)[None], 0)[0]

    agreement = {
        name: [float((choice(p) == choice(oracle)).mean()) for p in answers.values()]
        for name, oracle in oracles.items()
    }
    _peak = int(np.argmax(agreement["ICL"]))
    mo.md(f"""
    One prompt is an anecdote too. Take all {len(prompt.target)} prompts of `{evaluator.value}`, and let member
    {member.value} choose among the labels in the context. It agrees with the ICL oracle most at
    {list(answers)[_peak]:,} sequences, in **{agreement["ICL"][_peak]:.0%}** of its answers, and then with the CIWL
    oracle in {agreement["CIWL"][_peak]:.0%}. At the end it agrees with the ICL oracle in **{agreement["ICL"][-1]:.0%}**
    and with the CIWL oracle in **{agreement["CIWL"][-1]:.0%}**. (Where the remembered label is not in the context, the
    CIWL oracle guesses.)
    """)
    return (agreement,)


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 5. Inside: heads over time

    How does a transformer copy a label from its context? The known answer is an *induction circuit* of two layers.
    A **previous-token head** in the first layer copies what each label stands behind (its exemplar) to the label's
    place. An **induction head** in the second layer then compares the query with that and attends to the label that
    fits. Both can be measured on the attention itself, at every checkpoint:

    - `previous_token`: how much the labels attend to the token before them (from 0 to 1);
    - `induction_strength`: how much the query attends to the right label, minus the other ones (from -1 to 1).
    """)
    return


@app.cell
def _(run):
    previous, induction = eb.probe_run(run, ["previous_token", "induction_strength"], "icl", sequences=200)
    mo.vstack(
        [
            mo.image(heads_figure(one.measure.what, one.measure.unit, one.sequences, one.values)["png"])
            for one in (previous, induction)
        ]
    )
    return induction, previous


@app.cell(hide_code=True)
def _(induction, previous):
    # [checkpoint, member, layer, head]; the last layer computes the query's row alone, so it has no previous-token head
    _first, _last = previous.values[:, :, 0].max(-1), induction.values[:, :, -1].max(-1)
    _top = _last.max(0)
    mo.md(f"""
    Each panel is a member, each row a head (layer:head), from the first checkpoint on the left to the last on the
    right. In the median member the strongest previous-token head goes from {np.median(_first[0]):.2f} before training
    to **{np.median(_first[-1]):.2f}** at the end, and the strongest induction head from {np.median(_last[0]):.2f} to
    **{np.median(_top):.2f}** at its best. At the end of training it still has **{np.median(_last[-1]):.2f}**. Compare
    that with how much of ICL was lost by then: is a fading *behaviour* the same as a circuit that goes away?
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 6. Intervene

    A head that looks right need not matter. So take it away: `eb.Ablate` sets the output of heads to zero in the
    forward pass, and `eb.answer` gives the logits of the changed model. The prompts and the metric are those that the
    run was evaluated by, so the first bar is a point of the curve above. Every member is taken at the checkpoint at
    which its ICL is best.
    """)
    return


@app.cell
def _(run):
    curves, kept = run.metrics(), np.isin(run.metrics()["sequences"], run.checkpoints())
    best = curves["sequences"][kept][curves["icl"][:, kept].argmax(1)]  # of each member
    everything = [
        eb.prompts_of(run.spec, "icl", run.spec.evaluation_sequences, member=m) for m in range(run.spec.members)
    ]

    def icl_without(layer, heads):
        """ICL of every member at its best checkpoint without these heads of a layer: one tuple for each member."""
        out = []
        for m, chosen in enumerate(heads):
            model, params = run.model(m, best[m])
            ablation = (eb.Ablate(at=f"blocks.{layer}.attn.hook_z", heads=chosen),) if chosen else ()
            logits = eb.answer(model, params, everything[m], ablation)
            out.append(float(measure(("in_context_accuracy",), logits, everything[m]).mean()))
        return np.array(out)

    return best, icl_without


@app.cell
def _(best, icl_without, induction, previous, run):
    members, last = np.arange(run.spec.members), run.spec.model.layers - 1
    at = np.searchsorted(induction.sequences, best)
    as_previous, as_induction = previous.values[at, members, 0], induction.values[at, members, last]  # [member, head]
    all_heads = tuple(range(run.spec.model.heads))
    bars = {
        "nothing ablated": icl_without(0, [()] * len(members)),
        "without the head of layer 0\nthat is least a previous-token head": icl_without(
            0, [(int(head),) for head in as_previous.argmin(1)]
        ),
        "without the strongest\nprevious-token head": icl_without(0, [(int(head),) for head in as_previous.argmax(1)]),
        "without the strongest\ninduction head": icl_without(last, [(int(head),) for head in as_induction.argmax(1)]),
        "without any head\nof the last layer": icl_without(last, [all_heads] * len(members)),
    }
    _figure = Figure(figsize=(9, 4), layout="constrained")
    _panel = _figure.subplots()
    for _i, _values in enumerate(bars.values()):
        _panel.barh(_i, np.median(_values), color="#9ecae1")
        _panel.plot(_values, np.full(len(_values), _i), "o", color="#0a5f94", ms=4)
    _panel.axvline(0.5, color="0.4", ls=":", lw=1)
    _panel.set_yticks(range(len(bars)), list(bars))
    _panel.invert_yaxis()
    _panel.set_xlim(0, 1)
    _panel.set_xlabel("icl: accuracy (bars: median; dots: members; dotted: a guess)")
    _figure
    return (bars,)


@app.cell(hide_code=True)
def _(bars):
    _whole, _control, _previous, _induction, _none = (np.median(one) for one in bars.values())
    _n = len(next(iter(bars.values())))
    _drops = [(bars["nothing ablated"] - one > 0.02).sum() for one in bars.values()]
    mo.md(f"""
    Medians over the members: intact, ICL is {_whole:.2f}. Without the strongest induction head alone it is
    **{_induction:.2f}**: it falls by more than 0.02 in {_drops[3]} of {_n} members. Without all heads of the last layer
    it is **{_none:.2f}** (a guess is right in half of all cases). Without the strongest previous-token head of layer 0
    it is **{_previous:.2f}**, and without the head of that layer that is least of one, **{_control:.2f}**.

    Compare the last two bars. Where one induction head costs little and all together cost nearly everything, the heads
    of the last layer share one job, and one can stand in for another. Then compare the second and the third. In this
    run the head that looks least like a part of the circuit matters
    **{"more" if _control < _previous else "no more"}** than the one that looks most like it. An attention pattern says
    what a head reads; only the drop says what it is good for.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 7. The verdict

    Now the claims of step 2 are judged. The verdict is written into the run's folder, with the figure.
    """)
    return


@app.cell
def _(run, study):
    verdict = eb.conclude_run(study, run)
    verdict
    return (verdict,)


@app.cell(hide_code=True)
def _(run, verdict):
    _few = run.spec.members < 6
    _words = f"With {run.spec.members} members no claim can be decided: at least 6 are needed. " if _few else ""
    mo.md(f"""
    {_words}{sum(one.verdict == "holds" for one in verdict.claims)} of {len(verdict.claims)} claims hold. Change a
    threshold in step 2 to 0.6 and see what a verdict looks like that is not what you hoped for.

    `run`, as the last line of a cell, shows all of this together with its figure, its settings and how to make it
    again. So does `ebbtide report {run.path.name}` as one page to keep or to send.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md(r"""
    ## 8. What to try next

    1. **More seeds, longer.** Set `members=12` and `sequences=2_560_000` in step 1, the sizes of the study's own quick
       setting (`ebbtide run transience`). Does the fall go on?
    2. **Harder or easier to remember.** `source=replace(quick.source, classes=512)`, or 128. When do you expect IWL to
       come, and will there be any ICL before it? Write the claim first.
    3. **One world.** Every member here has classes of its own. Without `world=100` in the seeds all learn the same
       ones. Do the members then differ less, and what would a verdict be about?
    4. **Weight decay.** `optimizer=replace(quick.optimizer, decay=eb.WeightDecay(coefficient=1e-4))`. One paper says it
       keeps ICL alive.
    5. **Ablate in training.** `interventions=(eb.Ablate(at="blocks.1.attn.hook_z", heads=(0,)),)` in the spec acts in
       every step.
    6. **Your own data**: the notebook `my_own_data.py`.
    """)
    return


if __name__ == "__main__":
    app.run()
