r"""A theory of your own, tested on trained models: `ebbtide run examples/own_theory.py --check`, some seconds.

The model of `own_model.py` answers $q^T P \frac{1}{n} \sum_i y_i x_i$. For inputs and weights that are isotropic,
$x \sim N(0, I_d)$, $w \sim N(0, I_d / d)$ and noise of variance $\sigma^2$, the mean squared error of $P = \eta I$ is
$$\sigma^2 + 1 - 2 \eta + \eta^2 \left(1 + \frac{d + 1 + \sigma^2 d}{n}\right),$$
because $E |\frac{1}{n} \sum_i y_i x_i|^2 = 1 + (d + 1 + \sigma^2 d) / n$. It is least at
$\eta^* = n / (n + d + 1 + \sigma^2 d)$, where it is $\sigma^2 + 1 - \eta^*$. The claims were written before the run:
training finds this step, and this error.
"""

import numpy as np
from own_model import OneStep

import ebbtide as eb
from ebbtide.training.probe import checkpoints

BASE = eb.Spec(
    task=eb.Regression(context=12, noise=(0.5,)),
    source=eb.Functions(dim=4),
    model=OneStep(),
    optimizer=eb.Adam(lr=3e-3),
    batch=128,
    sequences=128_000,
    members=9,
    schedule=eb.Schedule(evaluations=5, checkpoints=2),
    evaluators=("train",),
    evaluation_sequences=4000,
    keep_best=None,
)


def optimum(dim: int, pairs: int, noise: float) -> tuple[float, float]:
    """The best step, and the mean squared error at it."""
    step = pairs / (pairs + dim + 1 + noise**2 * dim)
    return step, noise**2 + 1 - step


def theory(run) -> dict[str, np.ndarray]:
    """Of every member the theory beside what training found."""
    spec = run.header.spec
    step, error = optimum(spec["source"]["dim"], spec["task"]["context"], spec["task"]["noise"][0])
    _, trained = checkpoints(run)[-1]
    found = np.trace(trained["step"], axis1=1, axis2=2) / spec["source"]["dim"]
    return {
        "step_agreement": 1 - np.abs(found / step - 1),
        "error_agreement": 1 - np.abs(run.metrics()["train/query_loss"][:, -1] / error - 1),
    }


def claim(name: str, statement: str) -> eb.Claim:
    """The claim that theory and training agree to a tenth."""
    scalar = f"{name}_agreement"
    return eb.Claim(name, statement, "the formula above", scalar, 0.9, lambda evidence: evidence[scalar])


STUDY = eb.Study(
    name="one-step",
    paper="von Oswald et al. 2023 (arXiv 2212.07677), section 2",
    question="Does training find the step of gradient descent that theory says is best?",
    experiments=(
        eb.Experiment(
            name="one-step",
            question="Does training find the step of gradient descent that theory says is best?",
            section="the formula above",
            claims=(claim("step", "the learned step is that of theory"), claim("error", "so is the error")),
            presets={"quick": eb.Preset(eb.SingleRun("quick", scalars=theory), 0.1, "an example: d = 4, n = 12")},
            shows=("train",),
        ),
    ),
    bases={"quick": eb.Base(BASE, "d = 4, 12 pairs")},
)
