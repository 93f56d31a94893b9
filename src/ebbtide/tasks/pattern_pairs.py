"""The task of two patterns in context: pairs of an input and the sign that a rule gives its pattern, then a query."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.patterns import PatternBank, Patterns
from ebbtide.tasks.prompt import PromptType, SignPrompt, function_prompts
from ebbtide.tasks.task import FunctionTask, check_pairs
from ebbtide.traced import Traced, kind_name

OUTSIDE = 3
"""Number of patterns outside the domain in a prompt."""


class PatternPairs(FunctionTask, frozen=True, tag="pattern_pairs", forbid_unknown_fields=True):
    r"""Sequences of `context` pairs and a query, under a rule for the prompt: inputs of pattern a have the label +1,
    inputs of pattern b the label -1 (Li et al. 2024, arXiv 2402.15607). An input is $x = \mu_j + \kappa \nu_k$: a
    relevant pattern and an irrelevant one (`Patterns`), with $\kappa$ uniform from -`mixed` to `mixed` and k uniform.

    Each context input has pattern a with probability `informative` / 2, pattern b with as much, and otherwise another
    relevant pattern with a random label, which says nothing of the rule. The query has a or b, equally often.

    Args:
        context: the number of pairs before the query.
        informative: the probability that a context input has a pattern of the rule; alpha in the paper.
        mixed: the largest weight of the irrelevant pattern.
        label_norm: the size of a response: labels are shown as -`label_norm` or +`label_norm`; a traced field, so it
            may differ between members. It is the norm of the embedding of a label in the paper, whose sign alone the
            loss asks for.
        rules: the pairs (a, b): "trained": the first `pairs` of the source; "unseen": the others; "reversed": the
            trained ones with a and b exchanged, so that a model that knows the trained pairs by heart has all labels
            wrong.
        patterns: "inside": those of the source; "outside": in every prompt three new ones, $\mu'_j = \sum_i k_{ji}
            \mu_i$, orthogonal and of the same norm, whose coefficients add up to `coefficients`; the rule is one of the
            pairs of these three, and the irrelevant part of every input a new direction in the span of the $\nu_k$.
        coefficients: the sum $\sum_i k_{ji}$ of every pattern outside; $S_1$ in the paper.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `latent` has the pattern of every
    slot, `pattern` [batch, slots], and of the rule, `rule` [batch, 2].

    >>> task, source = eb.PatternPairs(context=6), eb.Patterns(relevant=4, irrelevant=2, pairs=4)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.inputs.shape, prompt.responses.shape, prompt.latent["pattern"].shape
    ((7, 5, 6), (7, 5), (5, 7))
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 20
    informative: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    mixed: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    label_norm: Traced = 1.0
    rules: Literal["trained", "unseen", "reversed"] = "trained"
    patterns: Literal["inside", "outside"] = "inside"
    coefficients: Annotated[float, msgspec.Meta(ge=0)] = 1.0

    @property
    def prompt_type(self) -> PromptType:
        return SignPrompt

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("loss", "sign_accuracy")

    @property
    def headline(self) -> str:
        return "sign_accuracy"

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Patterns`, and has the pairs and patterns that are asked for."""
        tag = kind_name(source)
        require(isinstance(source, Patterns), "source", tag, "must be patterns for the task pattern_pairs")
        assert isinstance(source, Patterns)
        require(self.label_norm > 0, "task.label_norm", self.label_norm, "must be larger than 0")
        if self.patterns == "outside":
            require(source.relevant > OUTSIDE, "source.relevant", source.relevant, "must be at least 4 to go outside")
            most = (source.relevant / OUTSIDE) ** 0.5
            allowed = f"must be at most the root of source.relevant / 3, {most:.3g}: patterns outside are orthogonal"
            require(self.coefficients <= most, "task.coefficients", self.coefficients, allowed)
        elif self.rules == "unseen":
            allowed = f"must be below all {source.all_pairs} pairs, or no pair is unseen"
            require(source.pairs < source.all_pairs, "source.pairs", source.pairs, allowed)
        elif self.rules == "reversed":
            most = (source.relevant - 1) // 2 * source.relevant
            allowed = f"must be at most {most}, or a reversed pair is a trained one"
            require(source.pairs <= most, "source.pairs", source.pairs, allowed)

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model answers the query alone: the inputs before it need not follow the
        rule."""
        check_pairs(pairing)
        require(pairing == "joint", "model.pairing", pairing, "must be joint: labels of other patterns are random")

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "unseen", "reversed", "outside")

    def variant(self, name: str) -> "PatternPairs":
        """The task of the evaluator `name`: `train` (prompts as in training), `unseen` or `reversed` (see `rules`), or
        `outside` (see `patterns`)."""
        if name == "train":
            return self
        return replace(self, patterns="outside") if name == "outside" else replace(self, rules=name)

    def outputs(self, source: SourceLike) -> int:
        """0: a response is a real number, of which the sign is asked."""
        return 0

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: PatternBank, split: Split
    ) -> SignPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        assert isinstance(source, Patterns)
        return SignPrompt(*function_prompts(lambda own: self._one(own, source, bank), key, index))

    def _one(
        self, key: Key[Array, ""], source: Patterns, bank: PatternBank
    ) -> tuple[Float[Array, "slots dim"], Float[Array, " slots"], Array, dict[str, Array]]:
        rule_key, slot_key, noise_key, outside_key = jax.random.split(key, 4)
        slots = self.context + 1
        outside = self.patterns == "outside"
        count = OUTSIDE if outside else source.relevant
        a, b = self._rule(rule_key, source)
        uniform = jax.random.uniform(slot_key, (4, slots))
        of_rule = (uniform[0] < self.informative).at[-1].set(True)
        sign = jnp.where(uniform[1] < 0.5, 1.0, -1.0)
        other = self._other(a, b, uniform[2], count)
        pattern = jnp.where(of_rule, jnp.where(sign > 0, a, b), other)
        weight = self.mixed * (2 * uniform[3] - 1)
        if outside:
            relevant = self._outside(outside_key, source) @ bank.relevant
            direction = jax.random.normal(noise_key, (slots, source.irrelevant))
            irrelevant = direction / jnp.linalg.norm(direction, axis=1, keepdims=True) @ bank.irrelevant
        else:
            relevant = bank.relevant
            irrelevant = bank.irrelevant[jax.random.randint(noise_key, (slots,), 0, source.irrelevant)]
        inputs = relevant[pattern] + weight[:, None] * irrelevant
        latent = {"pattern": pattern, "rule": jnp.stack([a, b])}
        return inputs, self.label_norm * sign, jnp.ones(self.context, bool), latent

    def _rule(self, key: Key[Array, ""], source: Patterns) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """The two patterns of a prompt's rule."""
        if self.patterns == "outside":
            first, step = jax.random.randint(key, (2,), jnp.asarray([0, 1]), jnp.asarray([OUTSIDE, OUTSIDE]))
            return first, (first + step) % OUTSIDE
        low, high = (source.pairs, source.all_pairs) if self.rules == "unseen" else (0, source.pairs)
        a, b = source.pair(jax.random.randint(key, (), low, high))
        return (b, a) if self.rules == "reversed" else (a, b)

    def _other(
        self, a: Int[Array, ""], b: Int[Array, ""], uniform: Float[Array, " slots"], count: int
    ) -> Int[Array, " slots"]:
        """Patterns other than a and b, uniformly: number i of those that are left."""
        left = (uniform * (count - 2)).astype(jnp.int32)
        left = left + (left >= jnp.minimum(a, b))
        return left + (left >= jnp.maximum(a, b))

    def _outside(self, key: Key[Array, ""], source: Patterns) -> Float[Array, "patterns relevant"]:
        """Coefficients of orthonormal patterns, each of which adds up to `coefficients`: an equal component c along the
        diagonal, and in the space across it vectors with the Gram matrix I - c^2."""
        along = self.coefficients / source.relevant**0.5
        ones = jnp.ones((source.relevant, 1)) / source.relevant**0.5
        drawn = jax.random.normal(key, (source.relevant, OUTSIDE))
        across = jnp.linalg.qr(drawn - ones @ (ones.T @ drawn))[0].T
        left = jnp.maximum(0.0, 1 - OUTSIDE * along**2) ** 0.5
        root = jnp.eye(OUTSIDE) - (1 - left) / OUTSIDE
        return along * ones.T + root @ across
