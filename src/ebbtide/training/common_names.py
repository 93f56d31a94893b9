"""Names and numbers as people write them: what other libraries call our fields, and 2.56M or 1_280_000."""

import re

ELSEWHERE = {
    "optimizer.lr": ("lr", "learning_rate", "eta"),
    "optimizer.schedule": ("lr_schedule", "scheduler", "warmup"),
    "optimizer.decay": ("weight_decay", "wd", "l2", "decay"),
    "model.layers": ("layers", "n_layers", "num_layers", "depth", "n_layer"),
    "model.width": ("width", "d_model", "hidden_size", "embed_dim", "n_embd", "d_hidden"),
    "model.heads": ("heads", "n_heads", "num_heads", "n_head"),
    "source.classes": ("classes", "n_classes", "num_classes"),
    "source.exemplars": ("exemplars", "n_exemplars"),
    "task.context": ("context", "n_context", "seq_len", "context_length", "shots"),
    "task.burst": ("burst", "burstiness"),
    "batch": ("batch_size", "bs"),
    "sequences": ("steps", "n_steps", "iterations", "epochs", "n_epochs", "num_epochs", "iters", "train_steps"),
    "members": ("n_members", "n_seeds", "num_seeds", "ensemble", "replicas"),
    "seeds": ("seed", "random_seed", "rng"),
    "evaluation_sequences": ("eval_size", "eval_sequences", "n_eval"),
    "schedule.evaluations": ("eval_every", "n_evaluations", "evaluations"),
    "schedule.checkpoints": ("save_every", "checkpoints"),
    "stopping.patience": ("patience", "early_stopping"),
}
"""Our fields, with their names elsewhere."""
NOTES = {
    "sequences": "sequences per member; a step is `batch` of them, and there are no epochs",
    "seeds": "seeds.init, seeds.data and seeds.evaluation; members differ in seeds by themselves",
    "schedule.evaluations": "the number of evaluations, not their distance",
    "schedule.checkpoints": "the number of checkpoints, not their distance",
}
FIELDS = {name: field for field, names in ELSEWHERE.items() for name in names}
FACTORS = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}


def field_called(name: str) -> str:
    """Words on the field that is called `name` elsewhere, such as `; here it is optimizer.lr`; empty where none is."""
    field = FIELDS.get(name.lower().replace("-", "_"))
    if field is None:
        return ""
    note = f" ({NOTES[field]})" if field in NOTES else ""
    return f"; here it is {field}{note}"


def number_in(text: str) -> int | float | None:
    """The number that a text writes with a unit of a thousand, million or billion (`2.56M`), or with underscores or
    commas between groups of three digits; None where it writes no such number.

    >>> from ebbtide.training.common_names import number_in
    >>> number_in("2.56M"), number_in("1_280_000"), number_in("1,280,000"), number_in("0.5k"), number_in("12L")
    (2560000, 1280000, 1280000, 500, None)
    """
    if re.fullmatch(r"\d{1,3}([_,])\d{3}(\1\d{3})*", text):
        return int(re.sub("[_,]", "", text))
    if found := re.fullmatch(r"(\d+)(?:\.(\d+))?([kKMBG])", text):
        whole, part, unit = found[1], found[2] or "", found[3]
        exact = int(whole + part) * FACTORS[unit]
        return exact // 10 ** len(part) if exact % 10 ** len(part) == 0 else exact / 10 ** len(part)
    return None
