"""A source of your own: linear functions with sparse weights. `python examples/own_source.py` trains in seconds.

The weights of a function come from a Laplace distribution in place of a normal one (Tibshirani 1996: its mode is the
lasso). Every task on functions takes the source, because it is a kind of `Functions`: `--source own_source.py:Laplace`.
"""

import jax

import ebbtide as eb


class Laplace(eb.Functions, frozen=True):
    """Functions whose weights have independent Laplace distributions, with the variance that normal ones would have."""

    def sample_prior(self, key):
        return self.deviation / 2**0.5 * jax.random.laplace(key, (self.features,))


SPEC = eb.Spec(
    task=eb.Regression(context=8, noise=(0.1,)),
    source=Laplace(dim=4),
    model=eb.Transformer(layers=2, width=32, heads=4),
    optimizer=eb.Adam(lr=1e-3),
    batch=64,
    sequences=64_000,
    schedule=eb.Schedule(evaluations=6, checkpoints=2),
    evaluators=("train", "repeated"),
    keep_best="train",
)

if __name__ == "__main__":  # not where ebbtide imports the file
    run = eb.train(SPEC, "runs/own-source")
    for name in SPEC.evaluators:
        print(name, run.metrics()[name][0].round(2))
