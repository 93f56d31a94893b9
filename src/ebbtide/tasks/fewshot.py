"""The bursty few-shot task: pairs of an exemplar and a label in context, then a query exemplar."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Bool, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import InputError, nearest, require
from ebbtide.sources.bank import Bank, Range, SourceLike, Split
from ebbtide.tasks import draws
from ebbtide.tasks.class_draw import ClassDraw
from ebbtide.tasks.labels import Fixed, Labels, PerSequence, Polysemy, Shared
from ebbtide.tasks.prompt import Prompt, PromptType, Tag
from ebbtide.tasks.relabel import CopyQueryLabel, Flip, HoldoutPair, Keep, LabelNoise, Pair, Relabel
from ebbtide.tasks.task import Evaluator, check_pairs
from ebbtide.traced import Traced, kind_name

METRICS: tuple[str, ...] = ("loss", "accuracy", "in_context_accuracy", "in_context_probability", "context_mass")
"""Names of the metrics, in the order of the last axis of every metric array."""
BY_RANK = ("icl_common", "icl_rare", "iwl_common", "iwl_rare")
NAMES = ("train", "icl", "icl_reserved", "icl_holdout", "iwl", "ciwl", "flip", "iwl_exemplar", *BY_RANK)
"""Evaluators of any few-shot task."""
NO_COPY = ("icl_no_copy", "flip_no_copy")
"""`icl` and `flip` on queries of which the context holds no exact copy."""
EVERY = (*NAMES, "icl_pairs", *NO_COPY)
"""All evaluators, in the order of their stream numbers."""


class FewShot(msgspec.Struct, frozen=True, tag="few_shot", forbid_unknown_fields=True):
    """Sequences of `context` pairs of an exemplar and a label, then a query exemplar whose label is the target. The
    order of the context is uniformly random.

    Args:
        context: the number of pairs before the query.
        burst: in a *bursty* sequence, the number of context slots with the query's class.
        distractor: whether a bursty sequence also has `burst` slots of one other class.
        rest: the classes of the other context slots: "iid" (drawn from all classes, so they may repeat the query's or
            the distractor's), "no_support" (neither of these two) or "unique" (neither, and all different).
        exemplar_draw: "independent" (with replacement: the query may equal a context exemplar), "without_replacement"
            (the query and its copies are different exemplars, and so are the distractor's copies) or "match" (the query
            and its copies are one exemplar, the distractor's copies another).
        p_bursty: the probability that a sequence is bursty; else it is drawn with a burst of 0.
        zipf: the exponent a of the class probabilities, p(c) ~ (c + 1)^-a.
        labels: the labelling scheme (`Fixed`, `Shared`, `Polysemy`, `PerSequence`).
        relabel: how labels are overwritten after the draw: for evaluators, and in training by `LabelNoise`.
        distinct: whether a class that must differ from the query's differs as a "class" (the papers) or also in its
            "label" (evaluators, where classes share labels).
        reserved_labels: the number of labels of the read-out that never occur in training. 0 in the public code of
            Singh et al. 2023; as many as held-out classes in that of Chan et al. 2022.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size.

    Sources: Chan et al. 2022 (2205.05055); Singh et al. 2023 (2311.08360) sections 2 and 3; the options are those of
    the two public code bases.

    >>> task, source = eb.FewShot(context=4, burst=2), eb.Gaussian(classes=64, dim=8, holdout_classes=8)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.exemplars.shape, prompt.labels.shape, task.outputs(source)  # [slot, batch, dim], [context, batch]
    ((5, 5, 8), (4, 5), 66)
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

    @property
    def prompt_type(self) -> PromptType:
        return Prompt

    @property
    def metrics(self) -> tuple[str, ...]:
        return METRICS

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` for fields that do not go together, or cannot be drawn from `source`."""
        tag = kind_name(source)
        allowed = "has no exemplars of classes for the task few_shot, e.g. as gaussian has"
        require(source.bank_type is Bank, "source", tag, allowed)
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
            outputs = self._outputs(classes)
            allowed = f"must be two different labels from 0 to {outputs - 1}"
            require(0 <= low < high < outputs, "task.relabel.labels", self.relabel.labels, allowed)
        if isinstance(self.relabel, HoldoutPair):
            has = isinstance(self.labels, PerSequence) and self.labels.holdout_pairs > 0
            require(has, "task.relabel", tag, "needs task.labels per_sequence with holdout_pairs >= 1")
        if isinstance(self.relabel, Flip | Pair | HoldoutPair):
            two = self.distractor and self.burst > 0 and self.p_bursty == 1
            require(two, "task.relabel", tag, "needs burst >= 1, distractor = true and p_bursty = 1")
        if isinstance(self.relabel, LabelNoise):
            share = self.relabel.share
            require(0 <= share <= 1, "task.relabel.share", share, "must be between 0 and 1")

    def _most_classes(self) -> int:
        """The largest number of different classes one sequence can hold."""
        bursty = self.context - (self.burst - 1) * (2 if self.distractor else 1) if self.burst else self.context + 1
        return self.context + 1 if self.p_bursty < 1 else bursty

    def outputs(self, source: SourceLike) -> int:
        """Size of the read-out: the number of labels of the training classes and of reserved labels."""
        return self._outputs(source.sizes().classes)

    def _outputs(self, classes: int) -> int:
        return self.labels.total(classes) + self.reserved_labels

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` for a model over states."""
        check_pairs(pairing)

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `evaluator`."""
        return EVERY

    def evaluator(self, name: str, source: SourceLike) -> Evaluator:
        """The evaluator `name` for models trained on this task.

        - `train`: the training distribution itself;
        - `icl`: two classes, context/2 copies each, relabelled to {0, 1} in random order: only ICL helps;
        - `icl_reserved`: the same with two labels never used in training (IWL cannot prefer either);
        - `icl_holdout`: `icl` on classes never trained;
        - `icl_pairs`: `icl` with a pair of labels that never occur together in training (for labels `PerSequence`
          with `holdout_pairs`; Singh et al. 2024, 2404.07129);
        - `iwl`: context of different classes, none with the query's label; true labels: only IWL helps;
        - `ciwl`: `iwl` with one context label overwritten by the query's: IWL or CIWL help, ICL does not;
        - `flip`: `icl` with the two classes' labels swapped: ICL is right, IWL and CIWL are wrong;
        - `iwl_exemplar`: `iwl` with query and context from held-out exemplars of the trained classes;
        - `icl_no_copy`, `flip_no_copy`: `icl` and `flip` on queries that equal no exemplar of the context
          (`exemplar_draw` = "without_replacement", whatever the training's): what a model can do beyond finding an
          exact copy. They need more exemplars a class than context/2;
        - `icl_common`, `icl_rare`, `iwl_common`, `iwl_rare`: `icl` and `iwl` on the most frequent tenth of the
          trained classes, and on the less frequent half (for skewed classes: `zipf`).

        `train` keeps the `zipf` and `p_bursty` of training (in the public code of Singh et al. its classes are
        uniform and all its sequences bursty). Of all others the classes are uniform, and every sequence follows the
        definition. Three scores are easily misread:

        - `icl_reserved` cannot be solved by a model that never saw its two labels as answers: training only ever
          pushed their outputs down. It stays at chance while `icl` is high;
        - `iwl` is 0, below its chance of 1 / outputs, for a model that copies labels: none in context is the query's;
        - the reserved labels count among the outputs: with 4 shared labels and 2 reserved ones a guess over all
          labels is right in 1 of 6 cases, not 1 of 4.

        Raises `InputError` for an unknown name. Source: Singh et al. 2023 (2311.08360) section 3 and 2025
        (2503.05631) section 2, and their public code (github.com/aadityasingh/icl-dynamics).
        """
        if name not in EVERY:
            raise InputError("evaluators", name, f"must be one of {', '.join(EVERY)}{nearest(name, EVERY)}")
        sizes, kind = source.sizes(), name.partition("_")[0] if name in (*BY_RANK, *NO_COPY) else name
        task, headline = self._variant(kind, sizes.classes)
        if name in NO_COPY:
            task = replace(task, exemplar_draw="without_replacement")
        split = sizes.split(holdout_classes=name == "icl_holdout", holdout_exemplars=name == "iwl_exemplar")
        if name in BY_RANK:
            split = split._replace(classes=self._rank_range(name, sizes.classes))
        keeps = isinstance(task.relabel, Keep | CopyQueryLabel | LabelNoise)
        group = self.labels.per_class if isinstance(self.labels, Polysemy) and keeps else 1
        return Evaluator(name, EVERY.index(name), task, headline, split, group)

    def _variant(self, kind: str, classes: int) -> tuple["FewShot", str]:
        """The task of an evaluator, and the metric by which it is reported."""
        exact = replace(self, relabel=Keep()) if isinstance(self.relabel, LabelNoise) else self
        two = replace(
            exact, burst=self.context // 2, distractor=True, rest="no_support", p_bursty=1.0, zipf=0.0, distinct="label"
        )
        none = replace(two, burst=0, rest="unique")
        relabelled = replace(two, distinct="class")  # every label is replaced: classes only need to differ
        first_reserved = self.labels.total(classes)
        match kind:
            case "train":
                return self, "in_context_accuracy"
            case "icl" | "icl_holdout":
                return replace(relabelled, relabel=Pair((0, 1))), "in_context_accuracy"
            case "icl_reserved":
                pair = Pair((first_reserved, first_reserved + 1))
                return replace(relabelled, relabel=pair), "in_context_accuracy"
            case "icl_pairs":
                return replace(relabelled, relabel=HoldoutPair()), "in_context_accuracy"
            case "ciwl":
                return replace(none, relabel=CopyQueryLabel()), "in_context_accuracy"
            case "flip":
                return replace(two, relabel=Flip()), "in_context_accuracy"
        return none, "accuracy"

    def _rank_range(self, name: str, classes: int) -> Range:
        """The range of the most frequent tenth of the training classes, or of the less frequent half; class 0 is the
        most frequent. Where classes share labels, the rare half begins at a multiple of the number of labels, so that
        label = class mod count holds within the range as well."""
        if name.endswith("common"):
            return Range(0, classes // 10)
        half = classes // 2
        start = half - half % self.labels.count if isinstance(self.labels, Shared) else half
        return Range(start, classes - start)

    def check_evaluator(self, name: str, source: SourceLike) -> None:
        """Raises `InputError` when there is no such evaluator, or it cannot be drawn from `source`."""
        even = name == "train" or self.context % 2 == 0
        require(even, "task.context", self.context, "must be even: evaluators use two classes")
        one, sizes = self.evaluator(name, source), source.sizes()
        reserves = name != "icl_reserved" or self.reserved_labels >= 2
        allowed = "must be at least 2 for the evaluator icl_reserved"
        require(reserves, "task.reserved_labels", self.reserved_labels, allowed)
        for kind, there, least, of in (
            ("holdout_classes", sizes.holdout_classes, 2, "icl_holdout"),
            ("holdout_exemplars", sizes.holdout_exemplars, 1, "iwl_exemplar"),
        ):
            allowed = f"must be at least {least} for the evaluator {name}"
            require(name != of or there >= least, f"source.{kind}", there, allowed)
        one.task.check(source)
        if name in BY_RANK:
            size = one.split.classes.size
            modulus = self.labels.count if isinstance(self.labels, Shared) else max(size, 1)
            allowed = f"leaves {size} classes for the evaluator {name}: too few for context = {self.context}"
            require(size - -(-size // modulus) >= self.context, "source.classes", sizes.classes, allowed)

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: Bank, split: Split
    ) -> Prompt:
        """Prompts with the numbers `index` of the stream `key`: classes and exemplars of `split`, looked up in
        `bank`."""
        start = split.classes.start
        trained = start + split.classes.size <= source.sizes().classes  # held-out classes have no label in the weights

        def draw(weights: Array | None) -> tuple[Array, ...]:
            """All sequences, with uniform classes or with these class probabilities (computed once for all)."""
            edges = None if weights is None else jnp.concatenate([jnp.zeros(1), jnp.cumsum(weights)])

            def one(i: Array) -> tuple[Array, ...]:
                return self._one(jax.random.fold_in(key, i), split, weights, edges, start if trained else 0)

            return jax.vmap(one, out_axes=(1, 1, 1, 1, 0, 0))(index)

        def skewed() -> tuple[Array, ...]:
            return draw(draws.zipf_weights(split.classes.size, self.zipf))

        if isinstance(self.zipf, (int, float)):
            sequences = draw(None) if self.zipf == 0 else skewed()
        else:  # a member whose value is 0 draws what a spec with 0 draws: the two have one address
            sequences = jax.lax.cond(self.zipf == 0, lambda: draw(None), skewed)
        classes, indices, tags, labels, target, own = sequences
        classes = classes + start
        indices = indices + jnp.uint32(split.exemplars.start)
        own = own if trained else jnp.full_like(own, -1)
        return Prompt(source.look_up(bank, classes, indices), labels, target, classes, indices, tags, own)

    def _one(
        self, key: Key[Array, ""], split: Split, weights: Array | None, edges: Array | None, first: int
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """One sequence as integers: (classes, exemplars, tags, context labels, target, own label). Classes count from
        the start of the split; the labels are those of class `first` + c."""
        slots = self.context + 1
        # One row of random words per purpose: no word serves two draws.
        words = jax.random.bits(key, (7, slots), "uint32")
        head, class_words, order_words, exemplar_words, copy_words, label_words, relabel_words = words

        count = split.classes.size
        modulus = self.labels.modulus(count) if self.distinct == "label" else count
        draw = ClassDraw(self.context, self.burst, self.distractor, self.rest, modulus, count, weights, edges)
        plan = draw.sequence(head[0], class_words, bursty=True)
        if not (isinstance(self.p_bursty, (int, float)) and self.p_bursty == 1):
            plain = draw.sequence(head[0], class_words, bursty=False)
            bursty = draws.unit(head[1]) < self.p_bursty
            plan = jax.tree.map(lambda a, b: jnp.where(bursty, a, b), plan, plain)

        order = jnp.append(jnp.argsort(order_words[: self.context]), self.context)
        classes, tags = plan.classes[order], plan.tags[order]
        indices = self._exemplars(tags, exemplar_words, copy_words, split.exemplars.size)
        labels, own = self.labels.assign(classes + first, label_words, self.labels.total(split.classes.size))
        if isinstance(self.relabel, LabelNoise):
            labels = self.relabel.draw(labels, classes, relabel_words, self.labels.total(split.classes.size))
        else:
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
        indices = self._draw_different(independent, of_query, copy_words[: self.burst + 1], count)
        if self.distractor and self.burst:
            indices = self._draw_different(
                indices, of_distractor, copy_words[self.burst + 1 : 2 * self.burst + 1], count
            )
        return indices

    @staticmethod
    def _draw_different(
        indices: UInt[Array, " slots"], where: Bool[Array, " slots"], words: UInt[Array, " k"], count: int
    ) -> UInt[Array, " slots"]:
        """Exemplars of the slots, with different ones in the slots of `where`."""
        several = jnp.stack(draws.distinct(words, count)).astype(jnp.uint32)
        rank = jnp.clip(jnp.cumsum(where) - 1, 0, words.shape[0] - 1)
        return jnp.where(where, several[rank], indices)

    def _relabel(
        self, labels: Int[Array, " slots"], tags: Int[Array, " slots"], words: UInt[Array, " slots"]
    ) -> Int[Array, " slots"]:
        of_query = (tags == Tag.BURSTY) | (tags == Tag.QUERY)
        of_distractor = tags == Tag.DISTRACTOR
        match self.relabel:
            case Keep() | LabelNoise():
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
