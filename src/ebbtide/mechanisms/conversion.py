r"""The context of a prompt converted to biases of the attention (ICLCA, Chen et al. 2024, arXiv 2406.02847): a
transformer with linearized attention then answers without the context's tokens as it did with them."""

from typing import TypeVar

from msgspec.structs import replace

from ebbtide.errors import InputError, require
from ebbtide.mechanisms.taps import record
from ebbtide.models.linearized import BiasedSoftmax, Linearized
from ebbtide.models.model import Model, Params
from ebbtide.models.positions import Identical, NoPositions, Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.tasks.prompt import FunctionPrompt, Prompt

Some = TypeVar("Some", Prompt, FunctionPrompt)


def with_biases(model: Model, random_features: int = 0, seed: int = 0) -> Transformer:
    """The model with biases of its attention that can hold a context: exactly, or with softmax attention by so many
    random features. Raises `InputError`, naming the field, where there is no such model."""
    allowed = "must be a transformer: other models have no attention whose biases could hold a context"
    require(isinstance(model, Transformer), "model", type(model).__name__, allowed)
    assert isinstance(model, Transformer)
    tag = model.positions.__struct_config__.tag
    allowed = "must be rotary, none or identical: absolute positions of a prompt would change without its context"
    require(isinstance(model.positions, Rotary | NoPositions | Identical), "model.positions", tag, allowed)
    allowed = "must be causal: without a mask the context's tokens see the query"
    require(model.mask == "causal", "model.mask", model.mask, allowed)
    attention = model.attention
    if attention == "softmax" and random_features:
        attention = BiasedSoftmax(random_features, seed)
        attention.check(model.positions, model.mask)
        return replace(model, attention=attention)
    allowed = "must be linearized: no state of fixed size holds the context of another attention exactly"
    if isinstance(attention, str):
        allowed += "; softmax attention is approximated by random features: --approximate N"
        raise InputError("model.attention", attention, allowed)
    allowed = "must be 0 unless attention is softmax without biases"
    require(random_features == 0, "random_features", random_features, allowed)
    return replace(model, attention=replace(attention, biases=True)) if isinstance(attention, Linearized) else model


def add_biases(model: Model, params: Params, *, random_features: int = 0, seed: int = 0) -> tuple[Transformer, Params]:
    """The model with biases that can hold a context, and its parameters with these biases, which are 0: it computes the
    same. A model that has biases is returned as it is.

    Args:
        model: a causal transformer with linearized attention, or with softmax attention and `random_features`.
        params: its parameters.
        random_features: of softmax attention, the number of random features of each head (`BiasedSoftmax`).
        seed: of the random features.

    Raises:
        InputError: no context can be converted to biases of this model.

    >>> model = eb.Transformer(attention=eb.Linearized(), positions=eb.Rotary(), width=16, heads=2)
    >>> params = model.init(jax.random.key(0), context=2, dim=8, labels=4)
    >>> biased, more = eb.add_biases(model, params)
    >>> more["blocks"][0]["attn"]["b_kv"].shape  # [head, feature, head width]
    (2, 8, 8)
    """
    biased = with_biases(model, random_features, seed)
    assert not isinstance(biased.attention, str)
    new = biased.attention.init_biases(biased.heads, biased.width // biased.heads)
    blocks = [block | {"attn": new | block["attn"]} for block in params["blocks"]]
    return biased, params | {"blocks": blocks}


def query_alone(prompt: Some) -> Some:
    """The prompt without its context: the query alone.

    >>> spec, params = eb.model_at("runs/tiny")
    >>> eb.query_alone(eb.prompts_of(spec, "icl", 5)).exemplars.shape  # [slot, sequence, feature]
    (1, 5, 8)
    """
    if isinstance(prompt, FunctionPrompt):
        short = {"inputs": prompt.inputs[-1:], "responses": prompt.responses[-1:], "present": prompt.present[:0]}
        return prompt._replace(**short)
    slots = {name: getattr(prompt, name)[-1:] for name in ("exemplars", "classes", "indices", "tags")}
    return prompt._replace(labels=prompt.labels[:0], **slots)


def fold_context(model: Model, params: Params, prompt: Prompt | FunctionPrompt, *, undo: bool = False) -> Params:
    r"""The parameters with the context of a prompt added to the biases: with linearized attention the model answers any
    further tokens as it did after the context.

    With $M$ tokens of context, whose keys and values in a layer are $k_j$ and $v_j$,

    $$b_{KV} \leftarrow \gamma^M R_{-M} b_{KV} + \sum_{j=1}^{M} \gamma^{M-j} R_{j-M}\phi(k_j) v_j', \qquad
      b_D \leftarrow \gamma^M b_D + \sum_{j=1}^{M} \gamma^{M-j} \phi(k_j).$$

    One forward pass, no gradients. Contexts may be folded one after the other. The context of a prompt is everything
    before its query; the query is not read. A pure function of arrays, which works under `jit` and `vmap`.

    Args:
        model: a transformer whose attention has biases (see `add_biases`).
        params: its parameters.
        prompt: one prompt (a batch of 1).
        undo: takes the context away again, as if it had never been folded; the last one folded must be the first one
            taken away.

    Raises:
        InputError: the model is none whose biases can hold a context, or the batch is not 1.

    Source: algorithm ICLCA of Chen et al. 2024 (arXiv 2406.02847), and with random features ICLAA.

    >>> model = eb.Transformer(attention=eb.Linearized(), positions=eb.Rotary(), width=16, heads=2)
    >>> spec, _ = eb.model_at("runs/tiny")
    >>> model, params = eb.add_biases(model, model.init(jax.random.key(0), **spec.shape()))
    >>> from ebbtide.tasks.prompt import part
    >>> prompt = part(eb.prompts_of(spec, "icl", 5), 0, 1)
    >>> folded = eb.fold_context(model, params, prompt)
    >>> np.allclose(model.apply(folded, eb.query_alone(prompt)), model.apply(params, prompt), atol=1e-5)
    True
    """
    allowed = "must have biases to hold a context (add_biases)"
    require(with_biases(model) == model, "model.attention", getattr(model, "attention", None), allowed)
    return fold_unchecked(model, params, prompt, undo=undo)


def fold_unchecked(model: Model, params: Params, prompt: Prompt | FunctionPrompt, *, undo: bool = False) -> Params:
    """`fold_context` of a model of which the conversion need not be exact."""
    assert isinstance(model, Transformer) and not isinstance(model.attention, str)
    batch = (prompt.exemplars if isinstance(prompt, Prompt) else prompt.inputs).shape[1]
    require(batch == 1, "prompt", batch, "must be one prompt: a model holds one context")
    layers = list(range(model.layers))
    for some in [[i] for i in layers] if undo else [layers]:  # undone layer by layer: each sees those below without it
        _, seen = record(model, params, prompt, "blocks.*.attn.hook_[kv]")
        blocks = list(params["blocks"])
        for i in some:
            key, v = (seen[f"blocks.{i}.attn.hook_{name}"][:-1] for name in "kv")
            attention, own = blocks[i]["attn"], model.attention
            added = own.sums(key, v, model.positions)
            held = {name: attention[name] for name in added if name in attention}
            if undo:
                held = {name: bias - added[name] for name, bias in held.items()}
                held = own.carry(held, -len(key), model.positions)
            else:
                held = {name: bias + added[name] for name, bias in own.carry(held, len(key), model.positions).items()}
            blocks[i] = blocks[i] | {"attn": attention | held}
        params = params | {"blocks": blocks}
    return params
