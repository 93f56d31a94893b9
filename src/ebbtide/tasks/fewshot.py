"""The bursty few-shot task: (exemplar, label) pairs in context, then a query exemplar."""

from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Bool, Int, Key, UInt

from ebbtide.errors import require
from ebbtide.sources.bank import Bank, SourceLike, Split
from ebbtide.tasks import draws
from ebbtide.tasks.labels import Fixed, Labels, PerSequence
from ebbtide.tasks.prompt import Prompt, Tag
from ebbtide.traced import Traced


class Pair(msgspec.Struct, frozen=True, tag="pair", forbid_unknown_fields=True):
    """Relabel: query class and distractor class get `labels` in random order (the ICL evaluator)."""

    labels: tuple[int, int] = (0, 1)


class HoldoutPair(msgspec.Struct, frozen=True, tag="holdout_pair", forbid_unknown_fields=True):
    """Relabel: query class and distractor class get a pair of labels held out from training, in random order."""


class Flip(msgspec.Struct, frozen=True, tag="flip", forbid_unknown_fields=True):
    """Relabel: query class and distractor class swap their labels; so does the target."""


class CopyQueryLabel(msgspec.Struct, frozen=True, tag="copy_query_label", forbid_unknown_fields=True):
    """Relabel: the label of one random context slot becomes the query's own (the CIWL evaluator)."""


class Keep(msgspec.Struct, frozen=True, tag="keep", forbid_unknown_fields=True):
    """No relabelling."""


Relabel = Keep | Pair | HoldoutPair | Flip | CopyQueryLabel


class _Classes(NamedTuple):
    """One sequence before its labels: what sits in each slot, query last."""

    classes: Int[Array, " slots"]
    tags: Int[Array, " slots"]


class FewShot(msgspec.Struct, frozen=True, tag="few_shot", forbid_unknown_fields=True):
    """Sequences of `context` (exemplar, label) pairs and a query exemplar whose label is asked.

    A *bursty* sequence holds the query's class `burst` times and, with `distractor`, one other
    class equally often; the other context slots follow `rest`: `iid` draws from all classes (they
    may repeat either class), `no_support` (never the query's class nor the distractor's) or
    `unique` (no_support, and all different). With probability 1 - `p_bursty` a sequence is drawn
    as if `burst` were 0. Context order is uniformly random.

    `exemplar_draw`: `independent` (with replacement: the query may equal a context exemplar),
    `without_replacement` (query and its copies all different, distractor copies too) or `match`
    (query and its copies are one exemplar, the distractor copies another).

    Classes follow p(c) ~ (c+1)^-`zipf`. `distinct` says what a class that must differ from the
    query's differs in: the class (the papers) or also the label (evaluators, where labels are shared).

    Sources: Chan et al. 2022 (2205.05055); Singh et al. 2023 (2311.08360) sections 2 and 3; the
    options are those of the two public code bases. Example i of a stream is a pure function of
    (root key, i), whatever the batch size.
    """

    context: int = 2
    burst: int = 1
    distractor: bool = True
    rest: Literal["iid", "no_support", "unique"] = "iid"
    exemplar_draw: Literal["independent", "without_replacement", "match"] = "independent"
    p_bursty: Traced = 1.0
    zipf: Traced = 0.0
    labels: Labels = Fixed()
    relabel: Relabel = Keep()
    distinct: Literal["class", "label"] = "class"
    reserved_labels: Annotated[int, msgspec.Meta(ge=0)] = 2

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` for combinations that cannot be drawn from `source`."""
        sizes, copies = source.sizes(), self.burst * (2 if self.distractor else 1)
        require(self.context >= 1, "task.context", self.context, "must be at least 1")
        require(self.burst >= 0, "task.burst", self.burst, "must be 0 or larger")
        what = "2 * burst (query and distractor copies)" if self.distractor else "burst"
        require(copies <= self.context, "task.burst", self.burst, f"{what} must not exceed context = {self.context}")
        require(0 <= self.p_bursty <= 1, "task.p_bursty", self.p_bursty, "must be between 0 and 1")
        require(0 <= self.zipf <= 10, "task.zipf", self.zipf, "must be between 0 and 10")
        require(
            self.distinct == "class" or self.zipf == 0,
            "task.distinct",
            self.distinct,
            "'label' needs zipf = 0 (use 'class' for skewed classes)",
        )
        require(
            sizes.classes >= self.context + 2,
            "source.classes",
            sizes.classes,
            f"must be at least {self.context + 2} for context = {self.context}",
        )
        if self.exemplar_draw == "without_replacement":
            allowed = f"must be at least burst + 1 = {self.burst + 1} to draw without replacement"
            require(sizes.exemplars >= self.burst + 1, "source.exemplars", sizes.exemplars, allowed)
        self.labels.check(sizes.classes, self._most_classes())
        self._check_others(sizes.classes)
        self._check_relabel(sizes.classes)

    def _check_others(self, classes: int) -> None:
        """With `distinct = "label"` a sequence must find enough classes without the query's label."""
        modulus = self.labels.modulus(classes) if self.distinct == "label" else classes
        need = int(self.distractor and self.burst > 0) + int(self.rest == "no_support")
        need = self._most_classes() - 1 if self.rest == "unique" else need
        allowed = f"must leave {need} classes without the query's label for context = {self.context}"
        require(classes - -(-classes // modulus) >= need, "source.classes", classes, allowed)

    def _check_relabel(self, classes: int) -> None:
        tag = self.relabel.__struct_config__.tag
        if isinstance(self.relabel, Pair):
            low, high = sorted(self.relabel.labels)
            outputs = self.outputs(classes)
            allowed = f"must be two different labels from 0 to {outputs - 1}"
            require(0 <= low < high < outputs, "task.relabel.labels", self.relabel.labels, allowed)
        if isinstance(self.relabel, HoldoutPair):
            has = isinstance(self.labels, PerSequence) and self.labels.holdout_pairs > 0
            require(has, "task.relabel", tag, "needs task.labels per_sequence with holdout_pairs >= 1")
        if isinstance(self.relabel, Flip | Pair | HoldoutPair):
            two = self.distractor and self.burst > 0 and self.p_bursty == 1
            require(two, "task.relabel", tag, "needs burst >= 1, distractor = true and p_bursty = 1")

    def _most_classes(self) -> int:
        """The largest number of different classes one sequence can hold."""
        bursty = self.context - (self.burst - 1) * (2 if self.distractor else 1) if self.burst else self.context + 1
        return self.context + 1 if self.p_bursty < 1 else bursty

    def outputs(self, classes: int) -> int:
        """Size of the read-out: the labels of `classes` training classes and the reserved ones."""
        return self.labels.total(classes) + self.reserved_labels

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: Bank, split: Split
    ) -> Prompt:
        """Examples `index` of the stream `key`: classes and exemplars of `split`, looked up in `bank`."""
        start = split.classes.start
        trained = start + split.classes.size <= source.sizes().classes  # held-out classes have no label in the weights

        def drawn(weights: Array | None) -> tuple[Array, ...]:
            """All sequences: of uniform classes, or of classes with these probabilities (made once for all)."""
            edges = None if weights is None else jnp.concatenate([jnp.zeros(1), jnp.cumsum(weights)])

            def one(i: Array) -> tuple[Array, ...]:
                return self._one(jax.random.fold_in(key, i), split, weights, edges, start if trained else 0)

            return jax.vmap(one, out_axes=(1, 1, 1, 1, 0, 0))(index)

        def skewed() -> tuple[Array, ...]:
            return drawn(draws.zipf_weights(split.classes.size, self.zipf))

        if isinstance(self.zipf, (int, float)):
            found = drawn(None) if self.zipf == 0 else skewed()
        else:  # a member whose value is 0 draws what a spec with 0 draws: the two have one address
            found = jax.lax.cond(self.zipf == 0, lambda: drawn(None), skewed)
        classes, indices, tags, labels, target, own = found
        classes = classes + start
        indices = indices + jnp.uint32(split.exemplars.start)
        own = own if trained else jnp.full_like(own, -1)
        return Prompt(source.look_up(bank, classes, indices), labels, target, classes, indices, tags, own)

    def _one(
        self, key: Key[Array, ""], split: Split, weights: Array | None, edges: Array | None, first: int
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """One sequence as integers: (classes, exemplars, tags, context labels, target, own label). Classes count from
        the start of the split; labels belong to class `first` + that."""
        slots = self.context + 1
        # One row of random words per purpose: no word serves two draws.
        words = jax.random.bits(key, (7, slots), "uint32")
        head, class_words, order_words, exemplar_words, copy_words, label_words, relabel_words = words

        draw = _ClassDraw(self, split.classes.size, weights, edges)
        plan = draw.sequence(head[0], class_words, bursty=True)
        if not (isinstance(self.p_bursty, (int, float)) and self.p_bursty == 1):
            plain = draw.sequence(head[0], class_words, bursty=False)
            bursty = draws.unit(head[1]) < self.p_bursty
            plan = jax.tree.map(lambda a, b: jnp.where(bursty, a, b), plan, plain)

        order = jnp.append(jnp.argsort(order_words[: self.context]), self.context)
        classes, tags = plan.classes[order], plan.tags[order]
        indices = self._exemplars(tags, exemplar_words, copy_words, split.exemplars.size)
        labels, own = self.labels.assign(classes + first, label_words, self.labels.total(split.classes.size))
        labels = self._relabel(labels, tags, relabel_words)
        return classes, indices, tags, labels[:-1], labels[-1], own

    def _exemplars(
        self, tags: Int[Array, " slots"], words: UInt[Array, " slots"], copy_words: UInt[Array, " slots"], count: int
    ) -> UInt[Array, " slots"]:
        independent = words % jnp.uint32(count)
        if self.exemplar_draw == "independent":
            return independent
        of_query = (tags == Tag.BURSTY) | (tags == Tag.QUERY)
        of_distractor = tags == Tag.DISTRACTOR
        if self.exemplar_draw == "match":
            query, distractor = independent[-1], independent[jnp.argmax(of_distractor)]
            return jnp.where(of_query, query, jnp.where(of_distractor, distractor, independent))
        indices = self._apart(independent, of_query, copy_words[: self.burst + 1], count)
        if self.distractor and self.burst:
            indices = self._apart(indices, of_distractor, copy_words[self.burst + 1 : 2 * self.burst + 1], count)
        return indices

    @staticmethod
    def _apart(
        indices: UInt[Array, " slots"], where: Bool[Array, " slots"], words: UInt[Array, " k"], count: int
    ) -> UInt[Array, " slots"]:
        """The slots of `where` get different exemplars."""
        several = jnp.stack(draws.distinct(words, count)).astype(jnp.uint32)
        rank = jnp.clip(jnp.cumsum(where) - 1, 0, words.shape[0] - 1)
        return jnp.where(where, several[rank], indices)

    def _relabel(
        self, labels: Int[Array, " slots"], tags: Int[Array, " slots"], words: UInt[Array, " slots"]
    ) -> Int[Array, " slots"]:
        of_query = (tags == Tag.BURSTY) | (tags == Tag.QUERY)
        of_distractor = tags == Tag.DISTRACTOR
        match self.relabel:
            case Keep():
                return labels
            case Pair(labels=(a, b)):
                swap = words[0] >> 31 == 1
                query, distractor = jnp.where(swap, b, a), jnp.where(swap, a, b)
            case HoldoutPair():
                assert isinstance(self.labels, PerSequence)
                query, distractor = self.labels.held_out(words)
            case Flip():
                query, distractor = labels[jnp.argmax(of_distractor)], labels[-1]
            case CopyQueryLabel():
                chosen = jnp.arange(labels.shape[0]) == draws.integer(words[0], self.context)
                return jnp.where(chosen, labels[-1], labels)
        return jnp.where(of_query, query, jnp.where(of_distractor, distractor, labels))


class _ClassDraw(NamedTuple):
    """Draws the classes of one sequence, uniform or weighted."""

    task: FewShot
    classes: int
    weights: Array | None
    edges: Array | None

    def sequence(self, query_word: Array, words: UInt[Array, " slots"], *, bursty: bool) -> _Classes:
        """Rest slots, then query copies, then distractor copies, then the query."""
        task = self.task
        burst = task.burst if bursty else 0
        with_distractor = task.distractor and burst > 0
        rest = task.context - burst * (2 if with_distractor else 1)
        query = self._any(query_word)
        distractor = self._others(words[-1:], query, [])[0] if with_distractor else query
        others = self._rest(words[:rest], query, [distractor] if with_distractor else [])
        classes = [*others, *[query] * burst, *([distractor] * burst if with_distractor else []), query]
        tags = [Tag.OTHER] * rest + [Tag.BURSTY] * burst
        tags += ([Tag.DISTRACTOR] * burst if with_distractor else []) + [Tag.QUERY]
        return _Classes(jnp.stack(classes), jnp.asarray(tags, jnp.int32))

    def _any(self, word: Array) -> Array:
        if self.weights is None:
            return draws.integer(word, self.classes)
        assert self.edges is not None
        return draws.weighted(word, self.weights, self.edges)

    def _rest(self, words: Array, query: Array, distractor: list[Array]) -> list[Array]:
        if self.task.rest == "iid":
            return [self._any(word) for word in words]
        if self.task.rest == "unique":
            return self._others(words, query, distractor)
        return [self._others(words[i : i + 1], query, distractor)[0] for i in range(words.shape[0])]

    def _others(self, words: Array, query: Array, also_not: list[Array]) -> list[Array]:
        """Different classes, none the query's (in class or label) and none in `also_not`."""
        if self.weights is not None and self.edges is not None:
            found = [query, *also_not]
            for word in words:
                found.append(draws.weighted(word, self.weights, self.edges, found))
            return found[1 + len(also_not) :]
        by_label = self.task.distinct == "label"
        modulus = self.task.labels.modulus(self.classes) if by_label else self.classes
        label = query % modulus
        # Work in the space of allowed classes: ranks among the classes whose label is not the query's.
        full_rows, partial = divmod(self.classes, modulus)
        fewest = self.classes - full_rows - (1 if partial else 0)
        allowed = jnp.where(label < partial, fewest, self.classes - full_rows) if partial else fewest
        taken = [c - (c // modulus) - (c % modulus > label) for c in also_not]
        found = list(taken)
        for word in words:
            r = (word % (jnp.uint32(allowed) - jnp.uint32(len(found)))).astype(jnp.int32)
            found.append(draws.skip(r, found))
        return [draws.other_label(r, label, modulus) for r in found[len(taken) :]]
