"""Larq's quantizers as files name them: which give signs, and with what scale.

| name                                | an input becomes | a weight becomes                                          |
|-------------------------------------|------------------|-----------------------------------------------------------|
| ste_sign, approx_sign, swish_sign   | sign(x)          | sign(w)                                                   |
| magnitude_aware_sign                | (refused)        | alpha * sign(w), alpha the mean of abs(w) over the filter |
| None                                | x                | w                                                         |

sign(0) = +1. They differ otherwise only in their gradients, which do not matter here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from edge.converters.builder import Options


class Quantizer(enum.Enum):
    """What a quantizer does in a trained network."""

    NONE = "none"
    SIGN = "sign"
    SCALED_SIGN = "scaled sign"


_BY_NAME = {
    "stesign": Quantizer.SIGN,
    "approxsign": Quantizer.SIGN,
    "swishsign": Quantizer.SIGN,
    "magnitudeawaresign": Quantizer.SCALED_SIGN,
    "noop": Quantizer.NONE,
    "noopquantizer": Quantizer.NONE,
}
NAMES = ("ste_sign", "approx_sign", "swish_sign", "magnitude_aware_sign")


def find(spec: object) -> Quantizer | None:
    """The quantizer of a config entry (a name, or an object as Keras 2, Keras 3 or Larq write it), or None if it is no known one."""
    name = _name(spec)
    return None if name is None else _BY_NAME.get(name.rpartition(">")[2].replace("_", "").lower())


def _name(spec: object) -> str | None:
    if isinstance(spec, str):
        return spec
    if not isinstance(spec, Mapping):
        return None
    name, config = spec.get("class_name"), spec.get("config")
    # Functions are written as {"class_name": "function", "config": "ste_sign"}.
    return config if name == "function" and isinstance(config, str) else name if isinstance(name, str) else None


def of_layer(options: Options, key: str) -> Quantizer:
    """The quantizer a layer's configuration gives under `key`; ModelError for one that is not known."""
    spec = options.config.get(key)
    if spec is None:
        return Quantizer.NONE
    found = find(spec)
    if found is None:
        raise options.error(
            f"{key} {_name(spec) or spec!r} is not supported, expected None or one of {', '.join(NAMES)}; train the layer with one of these"
        )
    return found
