"""What a model is: encoders, base models, the flow branch, and how weights are saved and loaded."""

from avseg.models import autr, avsegformer, catr, ecmvae, sama, tpavi  # noqa: F401  (they register themselves)
from avseg.models.base import (
    AVSModel,
    Inputs,
    Prediction,
    base_models,
    build,
    normalise,
    options_from,
    register,
)
from avseg.models.loading import load

__all__ = [
    "AVSModel",
    "Inputs",
    "Prediction",
    "base_models",
    "build",
    "load",
    "normalise",
    "options_from",
    "register",
]
