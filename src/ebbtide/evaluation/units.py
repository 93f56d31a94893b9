"""Units of the metrics, as the label of an axis names them; known without importing JAX."""

UNITS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "in_context_accuracy": "accuracy",
    "in_context_probability": "probability",
    "context_mass": "probability",
    "query_loss": "loss",
    "sign_accuracy": "share of right signs",
    "cell_accuracy": "accuracy",
    "configuration": "share of right configurations",
    "valid": "share of valid answers",
    "explained": "share of the response explained",
}


def unit_of(metric: str) -> str:
    """The unit of a metric; of one that a user's file defines, its name in words."""
    return UNITS.get(metric, metric.replace("_", " "))
