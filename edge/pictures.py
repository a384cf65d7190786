"""Picture files: read to uint8 arrays (height, width, channels), and written.

PNG, JPEG, BMP, GIF, PPM and WebP of any size up to 100 megapixels and any mode:

- 1 bit, grey and 16 bit grey become one channel, everything else three (RGB). 16 bit grey is scaled by 1/257, rounded
  (Pillow itself keeps only the upper byte of 16 bit colour). Float pixels (PFM) are 0..1, clipped.
- The EXIF orientation is applied; where the EXIF block cannot be read the pixels are taken as they lie.
- Transparency is composited on `background`, white unless told.
- Of an animation the first frame is read.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge.errors import InputError
from edge.paths import require_file

# WebP last: only when no other format fits does Pillow load its less common plug-ins.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".webp")
MAX_PIXELS = 100_000_000
WHITE = (255, 255, 255)

_WRITTEN = {".png": "PNG", ".bmp": "BMP", ".ppm": "PPM", ".jpg": "JPEG", ".jpeg": "JPEG"}

# What Pillow's decoders raise on damaged files, beside their own UnidentifiedImageError (an OSError).
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, AttributeError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: str | os.PathLike[str], *, background: tuple[int, int, int] = WHITE) -> NDArray[np.uint8]:
    """The pixels of a picture file: uint8 (height, width, 3) RGB, or (height, width, 1) grey.

    background: RGB levels 0..255 behind transparent pixels.
    Raises InputError, naming the file, where it is missing, no picture, damaged, cut short or over 100 megapixels.
    """
    path = require_file(path, "picture")
    with _as_input_errors(path), Image.open(path, formats=FORMATS) as image:
        _check_size(path, image.size)
        image.load()
        pixels = _pixels(_upright(image), background)
    return np.ascontiguousarray(pixels)


def write_picture(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write uint8 (height, width, 1 or 3) to a file, whole or not at all; the format is that of the name's ending.

    Raises InputError for an ending that is no picture's, and where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITTEN:
        raise InputError(
            f"cannot write the picture {path}: expected a name ending in {', '.join(_WRITTEN)}, "
            f"got {path.suffix or 'no ending'}; name it .png"
        )
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    encoded = io.BytesIO()
    image.save(encoded, format=_WRITTEN[path.suffix.lower()])
    _write_whole(path, encoded.getvalue())


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as err:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot write the picture {path}: {err.strerror or err}; choose another place") from err


@contextmanager
def _as_input_errors(path: Path) -> Iterator[None]:
    """Pillow's errors become InputError; its warnings (odd metadata, large pictures) are answered by our own checks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Image.DecompressionBombError as err:
        raise InputError(_too_large(path, "far more")) from err
    except UnidentifiedImageError as err:
        raise InputError(
            f"cannot read the picture {path}: expected {', '.join(FORMATS)}, got {_beginning(path)}; convert it to PNG"
        ) from err
    except MemoryError as err:
        raise InputError(f"cannot read the picture {path}: not enough memory for its pixels; make it smaller") from err
    except PermissionError as err:
        raise InputError(f"cannot read the picture {path}: {err.strerror}; check its permissions") from err
    except _DECODER_ERRORS as err:
        raise InputError(f"cannot read the picture {path}: it is damaged or cut short ({err}); save it again") from err


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    return f"a file that begins with {start!r}" if start else "an empty file"


def _check_size(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError(_too_large(path, f"{width} x {height}"))
    if width * height < 1:
        raise InputError(f"cannot read the picture {path}: expected pixels, got {width} x {height}; save it again")


def _too_large(path: Path, size: str) -> str:
    return f"the picture {path} is too large: expected at most {MAX_PIXELS:,} pixels, got {size}; make it smaller"


def _upright(image: Image.Image) -> Image.Image:
    method = _TRANSPOSE.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except _DECODER_ERRORS:
        # Viewers show a picture whose metadata are damaged, and so does every decoder that ignores them.
        return None


def _pixels(image: Image.Image, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        return _deep_pixels(image, background)
    if image.has_transparency_data:
        return np.asarray(_composite(_in_mode(image, "RGBA"), background))
    if image.mode in ("1", "L"):
        return np.asarray(_in_mode(image, "L"))[:, :, None]
    return np.asarray(_in_mode(image, "RGB"))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    # Pillow copies even where the mode is right: 400 MB at 100 megapixels.
    return image if image.mode == mode else image.convert(mode)


def _composite(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return canvas


def _deep_pixels(image: Image.Image, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Grey of 16 or 32 bits: whole numbers are 0..65535 (Pillow also gives those as mode I), floats 0..1."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        pixels = _float_levels(values)
    else:
        pixels = ((values.clip(0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        # PNG's colour key: pixels of exactly this 16 bit level are transparent.
        level = np.asarray(Image.new("RGB", (1, 1), background).convert("L"))[0, 0]
        pixels = np.where(values == key, level, pixels)
    return pixels[:, :, None]


def _float_levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise ValueError("pixels are NaN or infinite")
    return np.rint(values.clip(0.0, 1.0) * 255.0).astype(np.uint8)
