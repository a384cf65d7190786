"""From a picture to the array a net sees, and back.

The steps, in this order:

1. grey (ITU-R 601 luma in whole numbers, as Pillow's mode L) or colour, as the net's channel count or `gray` says;
2. inversion, x -> 255 - x;
3. resizing: stretch, centre crop or letterbox, bilinear without antialiasing, as Keras' loaders do (`edge.resize`);
4. the pixel range 0..255 mapped to `range`, x / (255 / (high - low)) + low;
5. the channels in `channel_order`;
6. less `mean`, divided by `std`, per channel in that order.

Steps 3 to 6 are float32, each operation rounded by itself, so that the presets give the bits of Keras' own
`preprocess_input`. Where the result is plain bytes (range 0..255, no mean, no std) the values after a resize are
rounded to whole numbers (half to even) in float32 as well as in uint8, so that both inputs of the engine agree exactly.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge.errors import FormatError, InputError
from edge.resize import RESIZES, blend, neighbours, window_of

CHANNEL_ORDERS = ("rgb", "bgr")

# Beyond these, float32 arithmetic on pixels overflows or loses them.
_LARGEST = 1e6
_SMALLEST_STEP = 1e-6

# Weights of red, green and blue in 65536ths.
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a net's input. Every instance is valid: the constructor raises InputError.

    range: (low, high), what the pixel values 0 and 255 become.
    mean, std: one value, one per channel in `channel_order`, or none; applied after `range`.
    channel_order: "rgb" or "bgr".
    gray: True shows the net a grey picture (in all its channels), False a colour one, None what its channel count asks.
    invert: black becomes white.
    resize: "stretch", "crop" or "letterbox".
    pad_value: the level, 0..255 and after inversion, of the bands that "letterbox" adds.
    """

    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_order: str = "rgb"
    gray: bool | None = None
    invert: bool = False
    resize: str = "stretch"
    pad_value: int = 0

    def __post_init__(self) -> None:
        for name, value in _canonical(self).items():
            object.__setattr__(self, name, value)

    @property
    def is_bytes(self) -> bool:
        """Whether the net sees exactly the whole numbers 0..255."""
        return self.range == (0.0, 255.0) and not any(self.mean) and all(value == 1.0 for value in self.std)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless these settings and the input shape (H, W, C) of a net go together."""
        if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3):
            raise InputError(
                f"the net's input cannot be a picture: expected height x width x 1 or 3 channels, got shape {shape}; "
                "give it arrays (.npy or .npz) instead"
            )
        for name in ("mean", "std"):
            if (count := len(getattr(self, name))) not in (0, 1, shape[2]):
                raise InputError(
                    f"preprocessing has {count} values of {name} for a net of {_channels(shape[2])}; "
                    f"give one value{'' if shape[2] == 1 else ' or three'}"
                )
        if self.gray is False and shape[2] == 1:
            raise InputError("colour pictures were asked for, but the net has 1 channel and sees grey; leave that out")

    def apply(
        self, picture: NDArray[np.uint8], shape: tuple[int, ...], *, dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """The array of `shape` (H, W, C) that the net sees of a picture, uint8 (h, w, 1 or 3).

        dtype: float32, or uint8 where `is_bytes` (the same values).
        Raises InputError for a shape that is no picture, a picture that is none, uint8 where values are no bytes.
        """
        self.check(shape)
        _check_picture(picture)
        _check_dtype(np.dtype(dtype), self)
        pixels = self._resized(picture, shape)
        values = np.rint(self._ordered(pixels)) if self.is_bytes else self._normalised(pixels)
        return np.ascontiguousarray(values, dtype=dtype)

    def describe(self, shape: tuple[int, ...] | None = None) -> str:
        """One line, such as "pixels 0..255 scaled to 0..1, RGB, stretched to 32x32 (bilinear)"."""
        low, high = self.range
        scaled = "as they are" if self.range == (0.0, 255.0) else f"scaled to {low:g}..{high:g}"
        parts = [f"{'inverted ' if self.invert else ''}pixels 0..255 {scaled}"]
        parts.append(self._colours_text(shape))
        parts += [f"less {_numbers_text(self.mean)}"] if self.mean else []
        parts += [f"divided by {_numbers_text(self.std)}"] if self.std else []
        return ", ".join([*parts, self._resize_text(shape)])

    def to_json(self) -> dict[str, object]:
        """A JSON-able dict; `from_json` gives back an equal Preprocess."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: object) -> Preprocess:
        """From a parsed JSON value; absent keys take their defaults. Raises FormatError for anything else."""
        if not isinstance(data, dict):
            raise FormatError(
                f"the preprocessing stored in the model is damaged: expected an object, got {_short(data)}"
            )
        try:
            return _replaced(cls(), data)
        except InputError as err:
            raise FormatError(
                f"the preprocessing stored in the model is damaged or newer than this edge: {err}"
            ) from err

    def _resized(self, picture: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
        height, width, channels = shape
        if picture.shape[:2] == (height, width):
            return self._coloured(picture, channels).astype(np.float32)
        window = window_of(self.resize, (picture.shape[0], picture.shape[1]), (height, width))
        near = neighbours(picture, window, (height, width))
        values = self._coloured(near.values, channels)
        if not (near.rows.all() and near.columns.all()):
            inside = near.rows[:, None, None] & near.columns[:, None]
            values = np.where(inside, values, np.uint8(self.pad_value))
        return blend(values, near.weight_y, near.weight_x)

    def _coloured(self, picture: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
        """Steps 1 and 2: grey or colour (h, w, channels), inverted where asked."""
        if picture.shape[2] == 3 and (channels == 1 or self.gray):
            picture = _luma(picture)
        values = ~picture if self.invert else picture
        return np.broadcast_to(values, (*picture.shape[:2], channels))

    def _ordered(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return pixels[:, :, ::-1] if self.channel_order == "bgr" else pixels

    def _normalised(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = self.range
        values = pixels / np.float32(255.0 / (high - low)) + np.float32(low)
        values = self._ordered(values)
        values = values - np.array(self.mean, np.float32) if self.mean else values
        return np.divide(values, np.array(self.std, np.float32), dtype=np.float32) if self.std else values

    def _colours_text(self, shape: tuple[int, ...] | None) -> str:
        if shape is not None and shape[-1] == 1:
            return "grey"
        return "grey in every channel" if self.gray else self.channel_order.upper()

    def _resize_text(self, shape: tuple[int, ...] | None) -> str:
        height, width = shape[:2] if shape else (0, 0)
        size = f"{height}x{width}" if shape else "the net's size"
        sides = "" if height == width else "height x width, "
        verb = {
            "stretch": f"stretched to {size}",
            "crop": f"cropped to the middle and resized to {size}",
            "letterbox": f"fitted into {size} with bands of {self.pad_value}",
        }[self.resize]
        return f"{verb} ({sides}bilinear)"


_PRESETS: dict[str, dict[str, object]] = {
    "unit": {"range": (0, 1), "mean": (), "std": (), "channel_order": "rgb"},
    "byte": {"range": (0, 255), "mean": (), "std": (), "channel_order": "rgb"},
    "mobilenet": {"range": (-1, 1), "mean": (), "std": (), "channel_order": "rgb"},
    "caffe": {"range": (0, 255), "mean": (103.939, 116.779, 123.68), "std": (), "channel_order": "bgr"},
    "torch": {"range": (0, 1), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channel_order": "rgb"},
}
PRESETS = tuple(_PRESETS)


def preset(name: str) -> Preprocess:
    """The preprocessing known by a name of `PRESETS`. Raises InputError for any other.

    unit: 0..1. byte: 0..255. mobilenet: -1..1. caffe: 0..255, BGR, less ImageNet's mean. torch: 0..1, less ImageNet's
    mean, divided by its standard deviation.
    """
    return combine(Preprocess(), {"preset": name})


def combine(stored: Preprocess, overrides: Mapping[str, object]) -> Preprocess:
    """The stored preprocessing with the options given at run in place of its own.

    overrides: field names of `Preprocess` and "preset"; a value of None means not given. A preset replaces range, mean,
    std and channel_order together and leaves the others; the options beside it then replace its own.
    Raises InputError for an unknown name or a value that does not fit.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    chosen = given.pop("preset", None)
    if chosen is not None and chosen not in PRESETS:
        raise InputError(f"unknown preset {_short(chosen)}; expected one of {', '.join(PRESETS)}")
    base = {} if chosen is None else _PRESETS[str(chosen)]
    return _replaced(stored, {**base, **given})


def default_for(rescales_itself: bool) -> Preprocess:
    """What is assumed where nothing is said: bytes for a model that rescales its input itself, else 0..1."""
    return preset("byte" if rescales_itself else "unit")


def picture_of(array: NDArray[Any], preprocess: Preprocess) -> NDArray[np.uint8]:
    """What the net sees, as a picture: uint8 (H, W, C), RGB, from the array (H, W, 1 or 3) that `apply` gave.

    Mean, std, range and channel order are undone; grey, inversion, crop and bands stay as the net sees them. Values
    outside 0..255 (an array that was not made by `apply`) are clipped. Raises InputError for other shapes and for NaN.
    """
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not np.isfinite(array).all():
        raise InputError(
            f"the net's input cannot be shown as a picture: expected finite values, height x width x 1 or 3, "
            f"got shape {array.shape}{'' if np.isfinite(array).all() else ' with NaN or infinite values'}"
        )
    low, high = preprocess.range
    values = array.astype(np.float64)
    values = values * np.array(preprocess.std) if preprocess.std else values
    values = values + np.array(preprocess.mean) if preprocess.mean else values
    values = (values - low) * (255.0 / (high - low))
    values = values[:, :, ::-1] if preprocess.channel_order == "bgr" else values
    return np.ascontiguousarray(np.rint(values).clip(0, 255)).astype(np.uint8)


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weighted = picture.astype(np.uint32) @ _LUMA
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[:, :, None]


def _check_picture(picture: NDArray[np.uint8]) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3) or 0 in picture.shape:
        raise InputError(
            "expected a picture, uint8 of height x width x 1 or 3 channels, "
            f"got {picture.dtype} of shape {picture.shape}; convert it first"
        )


def _check_dtype(dtype: np.dtype[Any], preprocess: Preprocess) -> None:
    if dtype != np.float32 and not (dtype == np.uint8 and preprocess.is_bytes):
        raise InputError(
            f"the net sees {preprocess.describe()}: expected float32{' or uint8' if preprocess.is_bytes else ''}, "
            f"asked for {dtype}"
        )


def _replaced(base: Preprocess, fields: Mapping[Any, Any]) -> Preprocess:
    known = [field.name for field in dataclasses.fields(Preprocess)]
    for name in fields:
        if name not in known:
            raise InputError(f"unknown preprocessing option {_short(name)}; expected one of {', '.join(known)}")
    return dataclasses.replace(base, **fields)


def _canonical(given: Preprocess) -> dict[str, object]:
    """The fields with their final types, so that equal settings are equal objects, or InputError."""
    return {
        "range": _range(given.range),
        "mean": _per_channel("mean", given.mean),
        "std": _std(given.std),
        "channel_order": _choice("channel_order", given.channel_order, CHANNEL_ORDERS),
        "gray": given.gray if given.gray is None else _flag("gray", given.gray),
        "invert": _flag("invert", given.invert),
        "resize": _choice("resize", given.resize, RESIZES),
        "pad_value": _level(given.pad_value),
    }


def _range(value: object) -> tuple[float, float]:
    low_high = _numbers("range", value)
    if len(low_high) != 2 or low_high[1] - low_high[0] < _SMALLEST_STEP:
        raise _unfit("range", "two numbers, the first below the second (invert swaps black and white)", value)
    return low_high[0], low_high[1]


def _std(value: object) -> tuple[float, ...]:
    std = _per_channel("std", value)
    if any(number < _SMALLEST_STEP for number in std):
        raise _unfit("std", f"numbers of at least {_SMALLEST_STEP:g}", value)
    return std


def _per_channel(name: str, value: object) -> tuple[float, ...]:
    found = _numbers(name, value)
    if len(found) not in (0, 1, 3):
        raise _unfit(name, "one number, or one for each of three channels", value)
    return found


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value):
        raise _unfit(name, f"a list of numbers between {-_LARGEST:g} and {_LARGEST:g}", value)
    return tuple(float(item) for item in value)


def _is_number(value: object) -> bool:
    # Compared before float(): a JSON integer may have thousands of digits. NaN fails the comparison.
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-_LARGEST <= value <= _LARGEST)


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _unfit(name, f"one of {', '.join(choices)}", value)
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _unfit(name, "true or false", value)
    return value


def _level(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
        raise _unfit("pad_value", "a whole number between 0 and 255", value)
    return value


def _unfit(name: str, expected: str, value: object) -> InputError:
    return InputError(f"preprocessing option {name}: expected {expected}, got {_short(value)}")


def _short(value: object) -> str:
    return reprlib.repr(value)


def _numbers_text(values: tuple[float, ...]) -> str:
    text = ", ".join(f"{value:g}" for value in values)
    return text if len(values) == 1 else f"({text})"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
