"""A theory of your own for the contest: `ebbtide contest SWEEP --theories examples/contest_theory.py`.

In-context learning goes once every class of the sweep has been seen a fixed number of times, whatever else.
"""

import numpy as np

import ebbtide as eb
from ebbtide.contest.scores import divergence


class Visits:
    """The memorising fraction is 1 / (1 + (visits x classes / sequences)^4); one parameter, the visits of a class."""

    name, free, needs_pure = "visits", 1, False

    def __init__(self, visits: float = 100.0):
        self.visits = visits

    def inputs(self, facts):
        """The number of classes: all that this theory sees of a cell."""
        if "source.classes" not in facts.config:
            raise eb.InputError("axes", list(facts.config), "must have source.classes for the theory visits")
        return facts.config["source.classes"]

    def fit(self, seen):
        """The best of some numbers of visits, by the mean divergence over the cells."""
        return min((Visits(visits) for visits in np.geomspace(1, 1e5, 60)), key=lambda one: one.loss(seen))

    def loss(self, seen):
        told = [self.predict(one.inputs, one.sequences) for one in seen]
        return np.mean([divergence(one.fractions, p, one.sequences) for one, p in zip(seen, told, strict=True)])

    def predict(self, classes, sequences):
        """The fractions [time, strategy]: generalising, memorising, neither."""
        memorising = 1 / (1 + (self.visits * classes / sequences) ** 4)
        return np.stack([1 - memorising, memorising, 0 * memorising], axis=1)

    def parameters(self):
        return {"visits": self.visits}


THEORY = Visits()
