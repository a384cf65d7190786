"""Picture files of every mode to pixels, and damaged, hostile or strange ones to one sentence."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from edge.errors import InputError
from edge.pictures import FORMATS, SUFFIXES, read_picture, write_picture

RGB = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options: object) -> Path:
    path = folder / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".webp"])
def test_colour_comes_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path, Image.fromarray(RGB), f"a{suffix}", **options)
    np.testing.assert_array_equal(read_picture(path), RGB)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".gif"])
def test_grey_comes_back_in_one_channel(tmp_path: Path, suffix: str) -> None:
    pixels = read_picture(saved(tmp_path, Image.fromarray(GREY), f"a{suffix}"))
    expected = GREY if pixels.shape[2] == 1 else np.stack([GREY] * 3, axis=2)
    np.testing.assert_array_equal(pixels.squeeze(), expected)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert pixels.shape[2] == 1 or suffix == ".gif"


def test_jpeg_in_grey_colour_and_cmyk_is_read_nearly_as_it_was(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    for mode in ("L", "RGB", "CMYK"):
        image = Image.fromarray(smooth).convert("RGB").convert(mode)
        pixels = read_picture(saved(tmp_path, image, f"{mode}.jpg", quality=95))
        assert pixels.shape == (32, 32, 1 if mode == "L" else 3)
        assert np.abs(pixels.astype(int) - smooth[:, :, None]).max() < 8


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY > 127))
    np.testing.assert_array_equal(read_picture(path)[:, :, 0], np.where(GREY > 127, 255, 0))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_the_background(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (100, 100, 100, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    path = saved(tmp_path, image.convert(mode))
    assert read_picture(path)[0].tolist() == [[255] * 3, [100] * 3, [127] * 3]
    assert read_picture(path, background=(0, 10, 20))[0, 0].tolist() == [0, 10, 20]


def test_a_transparent_palette_entry_and_colour_key_show_the_background(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    assert read_picture(saved(tmp_path, palette, transparency=0))[0].tolist() == [[255] * 3, [200, 0, 0]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [3, 2, 1]]], np.uint8))
    assert read_picture(saved(tmp_path, keyed, transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [3, 2, 1]]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert read_picture(saved(tmp_path, grey, transparency=7))[0].tolist() == [[255] * 3, [8] * 3]


def test_sixteen_bits_are_divided_by_257_and_rounded(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257, 32767, 32896, 65535]], np.uint16)
    pixels = read_picture(saved(tmp_path, Image.fromarray(levels)))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 127, 128, 255]
    plain = tmp_path / "a.pgm"
    plain.write_bytes(b"P5 3 1 65535\n" + np.array([0, 32896, 65535], ">u2").tobytes())
    assert read_picture(plain)[0, :, 0].tolist() == [0, 128, 255]


def test_a_sixteen_bit_colour_key_shows_the_background(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.array([[500, 0]], np.uint16)))
    content = path.read_bytes()
    ends = content.index(b"IHDR") + 4 + 13 + 4
    path.write_bytes(content[:ends] + png_chunk(b"tRNS", struct.pack(">H", 500)) + content[ends:])
    assert read_picture(path)[0, :, 0].tolist() == [255, 0]


@pytest.mark.skipif("pfm" not in str(Image.registered_extensions()), reason="Pillow reads PFM from 10.3 on")
def test_float_pixels_are_zero_to_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pfm.ppm"
    path.write_bytes(b"Pf 4 1 -1.0\n" + np.array([-1, 0.5, 1, 9], "<f4").tobytes())
    assert read_picture(path)[0, :, 0].tolist() == [0, 128, 255, 255]
    path.write_bytes(b"Pf 1 1 -1.0\n" + np.array([np.nan], "<f4").tobytes())
    with pytest.raises(InputError, match="NaN"):
        read_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(RGB), exif=exif)
    expected = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1), 7: np.rot90(RGB, 2).transpose(1, 0, 2), 8: np.rot90(RGB, 1),
    }  # fmt: skip
    np.testing.assert_array_equal(read_picture(path), expected[orientation])


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03", b"Exif\0\0garbage"]
)
def test_a_damaged_exif_block_does_not_hide_the_picture(tmp_path: Path, block: bytes) -> None:
    path = saved(tmp_path, Image.fromarray(RGB), "a.png", exif=block)
    np.testing.assert_array_equal(read_picture(path), RGB)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 3), level) for level in (10, 200)]
    for suffix in (".gif", ".png"):
        path = saved(tmp_path, frames[0], f"a{suffix}", save_all=True, append_images=frames[1:])
        assert (read_picture(path) == 10).all() and read_picture(path).shape[:2] == (3, 4)


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RGB), "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_picture(path), RGB)


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (2**31 - 1, 2**31 - 1), (100_000_001, 1)])
def test_over_100_megapixels_is_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(InputError, match=r"large\.png is too large: expected at most 100,000,000"):
        read_picture(path)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    for content, words in (
        (b"", "an empty file"),
        (b"hello world", "hello"),
        (b"II*\0\x08\0\0\0", "convert it to PNG"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read_picture(path)
        assert "notes.png" in str(caught.value) and all(name in str(caught.value) for name in FORMATS)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("none.png", "", "pipe.png", "x" * 5000, "a\0b"):
        with pytest.raises(InputError, match="cannot read the picture"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.webp", "a.ppm"])
def test_files_cut_short_are_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    content = path.read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"damaged or cut short|expected PNG"):
            read_picture(path)


SEEDS = {
    suffix: (Image.fromarray(RGB), {"lossless": True} if suffix == "webp" else {})
    for suffix in ("png", "jpg", "bmp", "gif", "webp", "ppm")
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(SEEDS)), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1))
def test_changed_bytes_are_read_or_refused(tmp_path: Path, suffix: str, changes: list[tuple[int, int]]) -> None:
    image, options = SEEDS[suffix]
    path = saved(tmp_path, image, f"a.{suffix}", **options)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    try:
        pixels = read_picture(path)
    except InputError as err:
        assert str(path) in str(err)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))),
    st.sampled_from(["a.png", "a.bmp"]),
)
def test_what_is_written_is_read_again(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    write_picture(tmp_path / name, pixels)
    np.testing.assert_array_equal(read_picture(tmp_path / name), pixels)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["a.txt", "a", "missing/a.png", "file/a.png"])
def test_writing_where_one_cannot_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot write the picture"):
        write_picture(tmp_path / name, RGB)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_way_stays_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match="choose another place"):
        write_picture(tmp_path / "a.png", RGB)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_every_ending_is_that_of_a_format_read() -> None:
    registered = Image.registered_extensions()
    assert all(registered[suffix] in FORMATS for suffix in SUFFIXES)


def test_warnings_as_errors_change_nothing(tmp_path: Path) -> None:
    """A whole process under -W error: the large picture makes Pillow warn, the palette one too."""
    palette = Image.fromarray(RGB).quantize(4)
    path = saved(tmp_path, palette, transparency=bytes([0, 128, 255, 255]))
    large = tmp_path / "large.png"
    large.write_bytes(png_header(9_700, 10_000))
    code = (
        "import sys\nfrom edge.errors import InputError\nfrom edge.pictures import read_picture\n"
        "print(read_picture(sys.argv[1]).shape)\n"
        "try:\n    read_picture(sys.argv[2])\nexcept InputError as err:\n    print(err)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("(5, 7, 3)") and "cut short" in done.stdout and done.stderr == ""
