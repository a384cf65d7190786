"""Layers that cut, enlarge, shrink and turn images."""

from __future__ import annotations

from edge.converters.builder import Builder, Layer, reads
from edge.converters.layers_shape import sides, transposed

_Pair = tuple[int, int]


@reads("Cropping2D", "Cropping1D")
def cropping(layer: Layer, build: Builder) -> str:
    height, width, _ = layer.plane()
    (top, bottom), (left, right) = sides(layer, "cropping")
    return cropped(layer, build, layer.input, (top, left), (height - top - bottom, width - left - right))


def cropped(layer: Layer, build: Builder, tensor: str, start: _Pair, size: _Pair) -> str:
    """Rows and columns of an image from `start` on."""
    kind = build.types[tensor]
    if min(size) < 1:
        raise layer.error(f"leaves nothing of an image of {kind.hwc[0]} x {kind.hwc[1]}; crop less")
    if size == kind.hwc[:2]:
        return tensor
    places = {"start_h": start[0], "start_w": start[1], "start_c": 0, "step_h": 1, "step_w": 1}
    sizes = {"size_h": size[0], "size_w": size[1], "size_c": kind.hwc[2]}
    return build.add("slice", layer, tensor, attrs={**places, **sizes}, rank=len(kind.shape))


@reads("CenterCrop")
def center_crop(layer: Layer, build: Builder) -> str:
    height, width, _ = layer.image()
    size = layer.options.whole("height", 0), layer.options.whole("width", 0)
    if size[0] > height or size[1] > width:
        raise layer.error(f"cannot crop an image of {height} x {width} to {size[0]} x {size[1]}; put a Resizing in its place")
    return cropped(layer, build, layer.input, ((height - size[0]) // 2, (width - size[1]) // 2), size)


@reads("UpSampling2D", "UpSampling1D")
def upsampling(layer: Layer, build: Builder) -> str:
    height, width, _ = layer.plane()
    rows, columns = layer.pair("size", (2, 2))
    return resized(layer, build, layer.input, (height * rows, width * columns))


def resized(layer: Layer, build: Builder, tensor: str, size: _Pair, default: str = "nearest") -> str:
    kind = build.types[tensor]
    method = layer.options.choice("interpolation", ("nearest", "bilinear"), default)
    if size == kind.hwc[:2]:
        return tensor
    return build.add(f"resize_{method}", layer, tensor, attrs={"size_h": size[0], "size_w": size[1]}, rank=len(kind.shape))


@reads("Resizing")
def resizing(layer: Layer, build: Builder) -> str:
    height, width, _ = layer.image()
    options = layer.options
    size = options.whole("height", 0), options.whole("width", 0)
    if options.flag("pad_to_aspect_ratio", False):
        raise layer.error("pad_to_aspect_ratio is not supported; resize pictures before the model, or without it")
    if options.flag("antialias", False) and (size[0] < height or size[1] < width):
        raise layer.error("antialias is not supported where pictures shrink; train with antialias=False")
    tensor = layer.input
    if options.flag("crop_to_aspect_ratio", False):
        kept = max(1, min(height, width * size[0] // size[1])), max(1, min(width, height * size[1] // size[0]))
        tensor = cropped(layer, build, tensor, ((height - kept[0]) // 2, (width - kept[1]) // 2), kept)
    return resized(layer, build, tensor, size, "bilinear")


@reads("Permute")
def permute(layer: Layer, build: Builder) -> str:
    """`dims` counts axes from 1, without the batch."""
    rank, dims = len(layer.shape), layer.options.wholes("dims", ())
    if sorted(dims) != list(range(1, rank + 1)):
        raise layer.error(f"dims should be an order of the axes 1 to {rank}, got {dims}")
    return transposed(layer, build, layer.input, dims)
