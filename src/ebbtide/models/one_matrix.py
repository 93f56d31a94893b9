"""One layer of linear attention whose only trained parameter is the matrix between keys and queries."""

from typing import Annotated, ClassVar

import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require
from ebbtide.models.model import AnyPrompt, Model, Pairing, Params, Tap, untouched
from ebbtide.tasks.prompt import FunctionPrompt


class OneMatrix(Model, frozen=True, tag="one_matrix", forbid_unknown_fields=True):
    r"""The model of Shen et al. (2024, arXiv 2410.11778; from memory): a layer of linear attention over tokens $[x_i;
    y_i]$ with one-hot labels and $[x; 0]$ for the query. Its values are the labels, and its key-query matrix W, [dim,
    dim], is all that is trained. The logits of the c classes are

    $$z_k = \frac{1}{N} \sum_{i: y_i = k} x_i' W x,$$

    and W begins at 0. The loss is convex in W. With two classes $z_1 - z_0 = \frac1N \sum_i y_i x_i' W x$ with labels
    $y_i = \pm 1$, the paper's form for two classes.

    It is a model of its own and no option of the transformer: there queries times keys are a product of two matrices,
    in which the loss is not convex, and embeddings and read-out would have to be given and frozen. That a `Transformer`
    with linear attention can hold it is checked (`verify/mixtures.py`).

    Args:
        classes: the number c of labels.

    >>> eb.OneMatrix().parameters(context=40, dim=4, labels=2)
    16
    """

    pairing: ClassVar[Pairing] = "joint"
    """The response of the query alone is predicted, as by transformers over joint tokens."""

    classes: Annotated[int, msgspec.Meta(ge=2)] = 2

    def tokens(self, context: int) -> int:
        """Number of tokens: the pairs and the query."""
        return context + 1

    def init(self, key: Key[Array, ""], *, context: int, dim: int, labels: int) -> Params:
        """W = 0, whatever the key. Raises `InputError` unless `labels` is the number of classes."""
        require(labels == self.classes, "model.classes", self.classes, f"must be the number of labels, {labels}")
        return {"w": jnp.zeros((dim, dim))}

    def apply(self, params: Params, prompt: AnyPrompt, tap: Tap = untouched) -> Float[Array, "*predicted batch labels"]:
        """Logits of the query's label [batch, labels]; for functions [1, batch, labels]."""
        functions = isinstance(prompt, FunctionPrompt)
        inputs, labels = (prompt.inputs, prompt.responses[:-1]) if functions else (prompt.exemplars, prompt.labels)
        own = (labels[..., None] == jnp.arange(self.classes)).astype(inputs.dtype)
        sums = tap("hook_class_sums", jnp.einsum("sbk,sbd->bkd", own, inputs[:-1]) / len(labels))
        logits = tap("hook_logits", jnp.einsum("bkd,bd->bk", sums, inputs[-1] @ params["w"].T))
        return logits[None] if functions else logits

    def stored_values(self, tokens: int) -> int:
        """Number of values that are stored of one sequence, at least."""
        return self.classes
