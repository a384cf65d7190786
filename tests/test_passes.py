"""Every pass by its text before and after; that it keeps the meaning, to the bit where a sign depends on it; and that it runs once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from keras_models import conv, dense, kernel, model_of, norm
from pass_graphs import FLATTEN, POOL, RELU, SIGN, graph_of, lines, read_twice, rng, same, text
from test_channels import split_and_convolved

from edge.converters.layers import read_graph
from edge.converters.passes import PASSES, run_passes
from edge.converters.passes_exact import read_exact_bytes, store_exact_int8
from edge.converters.passes_fold import absorb_affine, fold_batch_norm, fuse_activations
from edge.converters.passes_groups import merge_groups
from edge.converters.passes_layout import absorb_transpose
from edge.converters.passes_moves import hoist_channelwise
from edge.converters.passes_quantized import keep_integers, read_integers, read_signs, share_quantized
from edge.converters.passes_simplify import absorb_flatten, absorb_padding, drop_no_ops, fuse_rescaling, keep_packed
from edge.converters.thresholds import find_thresholds
from edge.graph import Graph, Pass

TURNED = ("Permute", {"name": "turned", "dims": [3, 1, 2]}, {})


def transposed(taps: int, strides: tuple[int, int] = (2, 2)) -> Any:
    """A transposed convolution to 3 channels, called "up"."""
    config = {"kernel_size": [taps, taps], "strides": list(strides), "padding": "same", "name": "up", "use_bias": False}
    return "Conv2DTranspose", config, {"kernel": kernel(rng(), taps, taps, 3, 8)}



def activation(quantizer: str, name: str) -> Any:
    return "QActivation", {"activation": quantizer, "name": name}, {}


LEVELS = activation("quantized_relu(4,1)", "levels")


def qconv(quantizer: str, *, name: str = "conv", inputs: int = 8, padding: str = "same", **config: Any) -> Any:
    """A convolution of QKeras to 2 channels, 3x3 unless told otherwise."""
    options = {"kernel_size": [3, 3], "use_bias": False, "kernel_quantizer": quantizer, "name": name, "padding": padding, **config}
    return "QConv2D", options, {"kernel": kernel(rng(), *options["kernel_size"], inputs, 2)}


# Each entry: the pass, a graph it applies to, the text it leaves (without the first line), and how far values may move.
def cases() -> dict[str, tuple[Pass, Callable[[], Graph], str, float]]:
    return {
        "drop_no_ops": (
            drop_no_ops,
            lambda: graph_of(
                ("MaxPooling2D", {"pool_size": 1}, {}), ("ZeroPadding2D", {"padding": 0}, {}), ("Reshape", {"target_shape": [4, 4, 8]}, {}),
                ("Rescaling", {"scale": 1.0}, {}), RELU,
            ),
            """relu: 4x4x8 float32 = activation image activation=1
            outputs relu""",
            0.0,
        ),
        "hoist_channelwise": (
            hoist_channelwise,
            lambda: graph_of(transposed(2), norm(rng(), 3), ("ReLU", {"name": "relu"}, {})),
            """up/conv2d: 4x4x12 float32 = conv2d image filter:float32
            norm/early: 4x4x12 float32 = affine up/conv2d mul:float32 add:float32
            relu/early: 4x4x12 float32 = activation norm/early activation=1
            relu: 8x8x3 float32 = depth_to_space relu/early block_h=2 block_w=2
            outputs relu""",
            0.0,
        ),
        "hoist_channelwise before phases are joined": (
            hoist_channelwise,
            lambda: graph_of(transposed(3, strides=(1, 2)), ("Cropping2D", {"cropping": 1}, {}), RELU),
            """up/conv2d: 4x4x3 float32 = conv2d image filter:float32 pad_top=1 pad_bottom=1 pad_left=1
            up/conv2d.2: 4x4x3 float32 = conv2d image filter:float32 pad_top=1 pad_bottom=1
            relu/early/early/early0: 4x4x3 float32 = activation up/conv2d activation=1
            relu/early/early/early1: 4x4x3 float32 = activation up/conv2d.2 activation=1
            relu/early/early: 4x4x6 float32 = concat relu/early/early/early0 relu/early/early/early1
            relu/early: 4x8x3 float32 = depth_to_space relu/early/early block_h=1 block_w=2
            relu: 2x6x3 float32 = slice relu/early start_h=1 start_w=1 start_c=0 size_h=2 size_w=6 size_c=3 step_h=1 step_w=1
            outputs relu""",
            0.0,
        ),
        "absorb_flatten": (
            absorb_flatten,
            lambda: graph_of(FLATTEN, ("ReLU", {"name": "relu"}, {}), dense(rng(), 128, 3, name="dense")),
            """relu/image: 4x4x8 float32 = activation image activation=1
            dense: 3 float32 = dense relu/image filter:float32
            outputs dense""",
            0.0,
        ),
        "absorb_flatten of signs": (
            absorb_flatten,
            lambda: graph_of(FLATTEN, dense(rng(), 128, 3, name="dense", sign=True)),
            """dense/binarize: 4x4x8 bits = binarize image
            dense: 3 float32 = dense dense/binarize filter:bits scale:float32
            outputs dense""",
            0.0,
        ),
        "absorb_flatten of a convolution of one pixel": (
            absorb_flatten,
            lambda: graph_of(
                ("Reshape", {"target_shape": [1, 1, 128]}, {}), conv(rng(), (1, 1), 128, 3, name="conv", sign=True, padding="same"),
            ),
            """conv/binarize: 4x4x8 bits = binarize image
            conv: 1x1x3 float32 = conv2d conv/binarize filter:bits scale:float32
            outputs conv""",
            0.0,
        ),
        "absorb_transpose": (
            absorb_transpose,
            lambda: absorb_flatten(graph_of(TURNED, FLATTEN, dense(rng(), 128, 3, name="dense"))),
            """dense: 3 float32 = dense image filter:float32
            outputs dense""",
            1e-5,
        ),
        "absorb_transpose of signs": (
            absorb_transpose,
            lambda: absorb_flatten(graph_of(TURNED, FLATTEN, dense(rng(), 128, 3, name="dense", sign=True))),
            """dense/binarize: 4x4x8 bits = binarize image
            dense: 3 float32 = dense dense/binarize filter:bits scale:float32
            outputs dense""",
            0.0,
        ),
        "merge_groups": (
            merge_groups,
            lambda: split_and_convolved(parts=2),
            """joined: 4x5x4 float32 = conv2d image filter:float32 bias:float32 pad_top=1 pad_bottom=1 pad_right=1 groups=2
            outputs joined""",
            0.0,
        ),
        "keep_packed": (
            keep_packed,
            lambda: graph_of(SIGN, ("MaxPooling2D", {"name": "pool"}, {}), conv(rng(), (2, 2), 8, 3, name="conv", sign=True)),
            """sign: 4x4x8 bits = binarize image
            pool: 2x2x8 bits = max_pool2d sign window_h=2 window_w=2 stride_h=2 stride_w=2
            conv: 1x1x3 float32 = conv2d pool filter:bits scale:float32
            outputs conv""",
            0.0,
        ),
        "absorb_padding": (
            absorb_padding,
            lambda: graph_of(("ZeroPadding2D", {"padding": [[1, 2], [0, 3]]}, {}), conv(rng(), (3, 3), 8, 2, name="conv", padding="same")),
            """conv: 7x7x2 float32 = conv2d image filter:float32 pad_top=2 pad_bottom=3 pad_left=1 pad_right=4
            outputs conv""",
            0.0,
        ),
        "absorb_padding of signs": (
            absorb_padding,
            lambda: graph_of(("ZeroPadding2D", {"padding": 1}, {}), conv(rng(), (3, 3), 8, 2, name="conv", sign=True)),
            """conv/binarize: 4x4x8 bits = binarize image
            conv: 4x4x2 float32 = conv2d conv/binarize filter:bits scale:float32 pad_top=1 pad_bottom=1 pad_left=1 pad_right=1 pad_ones=1
            outputs conv""",
            0.0,
        ),
        "fuse_rescaling": (
            fuse_rescaling,
            lambda: graph_of(("Rescaling", {"scale": 0.3, "offset": -1.0, "name": "scale"}, {}), dtype="uint8"),
            """scale: 4x4x8 float32 = affine image mul:float32 add:float32
            outputs scale""",
            0.0,
        ),
        "store_exact_int8": (
            store_exact_int8,
            lambda: graph_of(conv(rng(), (3, 3), 8, 2, grid=2.0**-7, name="conv", bias=True)),
            """conv: 2x2x2 float32 = conv2d image filter:int8 bias:float32 scale:float32
            outputs conv""",
            0.0,
        ),
        "read_exact_bytes": (
            read_exact_bytes,
            lambda: run_passes(
                graph_of(("Rescaling", {"scale": 2.0**-8}, {}), conv(rng(), (3, 3), 8, 2, grid=2.0**-5, name="conv"), dtype="uint8"),
                (fuse_rescaling, store_exact_int8),
            ),
            """conv: 2x2x2 float32 = conv2d image filter:int8 scale:float32
            outputs conv""",
            0.0,
        ),
        "keep_integers": (
            keep_integers,
            lambda: graph_of(LEVELS, POOL),
            """levels/activation: 4x4x8 float32 = activation image activation=1 limit=1.875
            levels/quantize: 4x4x8 int8 scale 0.125 zero -128 = quantize levels/activation
            pool/int8: 2x2x8 int8 scale 0.125 zero -128 = max_pool2d levels/quantize window_h=2 window_w=2 stride_h=2 stride_w=2
            pool: 2x2x8 float32 = dequantize pool/int8
            outputs pool""",
            0.0,
        ),
        "share_quantized": (
            share_quantized,
            lambda: read_twice("dorefa_quantizer"),
            """a/affine: 4x4x8 float32 = affine image mul:float32
            a/activation: 4x4x8 float32 = activation a/affine activation=1 limit=3
            a/quantize: 4x4x8 int8 scale 1 zero -128 = quantize a/activation
            a/dequantize: 4x4x8 float32 = dequantize a/quantize
            a/affine.2: 4x4x8 float32 = affine a/dequantize mul:float32
            a: 4x4x2 float32 = conv2d a/affine.2 filter:bits scale:float32
            b: 4x4x2 float32 = conv2d a/affine.2 filter:bits scale:float32
            sum: 4x4x2 float32 = add a b
            outputs sum""",
            0.0,
        ),
        "read_integers": (
            read_integers,
            lambda: graph_of(LEVELS, qconv("quantized_bits(4,0,1,alpha=1)")),
            """levels/activation: 4x4x8 float32 = activation image activation=1 limit=1.875
            levels/quantize: 4x4x8 int8 scale 0.125 zero -128 = quantize levels/activation
            conv: 4x4x2 float32 = conv2d levels/quantize filter:int8 scale:float32 pad_top=1 pad_bottom=1 pad_left=1 pad_right=1
            outputs conv""",
            0.0,
        ),
        "read_integers behind a scaling": (
            read_integers,
            lambda: graph_of(activation("quantized_bits(8,1,alpha=0.3)", "levels"), qconv("binary(alpha=1)")),
            """levels/quantize: 4x4x8 int8 scale 0.015625 zero 0 = quantize image
            conv: 4x4x2 float32 = conv2d levels/quantize filter:bits scale:float32 pad_top=1 pad_bottom=1 pad_left=1 pad_right=1
            outputs conv""",
            1e-6,
        ),
        "read_signs of filters with zeros": (
            read_signs,
            lambda: graph_of(SIGN, qconv("ternary(alpha=1)"), qconv("ternary(alpha=2)", name="next", inputs=2)),
            """sign: 4x4x8 bits = binarize image
            sign/twice: 4x4x16 bits = concat sign sign
            conv: 4x4x2 float32 = conv2d sign/twice filter:bits scale:float32 pad_top=1 pad_bottom=1 pad_left=1 pad_right=1
            next: 4x4x2 float32 = conv2d conv filter:int8 scale:float32 pad_top=1 pad_bottom=1 pad_left=1 pad_right=1
            outputs next""",
            0.0,
        ),
        "read_signs of zeros and ones": (
            read_signs,
            lambda: graph_of(activation("binary(use_01=1)", "01"), qconv("binary(alpha=1)", kernel_size=[2, 1])),
            """01/affine: 4x4x8 float32 = affine image mul:float32 add:float32
            01/binarize: 4x4x8 bits = binarize 01/affine
            conv: 4x4x2 float32 = conv2d 01/binarize filter:bits scale:float32 bias:float32 pad_bottom=1 pad_ones=1
            outputs conv""",
            0.0,
        ),
        "find_thresholds": (
            find_thresholds,
            lambda: graph_of(
                conv(rng(), (2, 2), 8, 24, name="conv", sign=True, padding="same"), norm(rng(), 24, spread=6), RELU,
                norm(rng(3), 24, name="norm2"), dense(rng(), 24, 3, name="dense", sign=True),
            ),
            """conv/binarize: 4x4x8 bits = binarize image
            dense/binarize: 4x4x24 bits = conv2d conv/binarize filter:bits threshold:int32 pad_bottom=1 pad_right=1
            dense: 4x4x3 float32 = conv2d dense/binarize filter:bits scale:float32
            outputs dense""",
            0.0,
        ),
        "find_thresholds around a pool": (
            find_thresholds,
            lambda: graph_of(
                conv(rng(), (2, 2), 8, 24, name="conv", sign=True, padding="same"), POOL, norm(rng(), 24, spread=6),
                conv(rng(), (1, 1), 24, 3, name="next", sign=True),
            ),
            """conv/binarize: 4x4x8 bits = binarize image
            conv/bits: 4x4x24 bits = conv2d conv/binarize filter:bits threshold:int32 pad_bottom=1 pad_right=1
            next/binarize: 2x2x24 bits = max_pool2d conv/bits flip:bits window_h=2 window_w=2 stride_h=2 stride_w=2
            next: 2x2x3 float32 = conv2d next/binarize filter:bits scale:float32
            outputs next""",
            0.0,
        ),
        "absorb_affine": (
            absorb_affine,
            lambda: graph_of(norm(rng(), 8), conv(rng(), (3, 3), 8, 2, name="conv", sign=True)),
            """conv/binarize: 4x4x8 bits = binarize image mul:float32 add:float32
            conv: 2x2x2 float32 = conv2d conv/binarize filter:bits scale:float32
            outputs conv""",
            0.0,
        ),
        "fold_batch_norm": (
            fold_batch_norm,
            lambda: graph_of(
                conv(rng(), (3, 3), 8, 2, name="conv", bias=True), norm(rng(), 2), ("Rescaling", {"scale": 2.0, "name": "scale"}, {})
            ),
            """scale: 2x2x2 float32 = conv2d image filter:float32 bias:float32
            outputs scale""",
            1e-6,
        ),
        "fold_batch_norm into a scale": (
            fold_batch_norm,
            lambda: graph_of(conv(rng(), (3, 3), 8, 2, name="conv", sign=True), norm(rng(), 2)),
            """conv/binarize: 4x4x8 bits = binarize image
            norm: 2x2x2 float32 = conv2d conv/binarize filter:bits scale:float32 bias:float32
            outputs norm""",
            0.0,
        ),
        "fold_batch_norm of two": (
            fold_batch_norm,
            lambda: graph_of(("Rescaling", {"scale": 0.5, "offset": 1.0}, {}), norm(rng(), 8)),
            """norm: 4x4x8 float32 = affine image mul:float32 add:float32
            outputs norm""",
            1e-6,
        ),
        "fuse_activations": (
            fuse_activations,
            lambda: graph_of(conv(rng(), (3, 3), 8, 2, name="conv"), ("ReLU", {"max_value": 6.0, "name": "relu"}, {})),
            """relu: 2x2x2 float32 = conv2d image filter:float32 activation=1 limit=6
            outputs relu""",
            0.0,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("case", cases())
def test_a_pass_changes_the_text_and_keeps_the_values(case: str) -> None:
    step, build, expected, tolerance = cases()[case]
    before = build()
    after = step(before).verify(after=case)
    assert text(after).split("\n", 1)[1] == lines(expected)
    same(before, after, tolerance=tolerance)
    assert step(after).text() == after.text()


def test_every_pass_has_a_case() -> None:
    assert {step for step, *_ in cases().values()} == set(PASSES)


# -- where passes must not act -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "layers"),
    [
        (drop_no_ops, [RELU, ("Reshape", {"target_shape": [4, 8, 4]}, {})]),
        (absorb_padding, [("ZeroPadding2D", {"padding": 1}, {}), POOL]),
        (absorb_flatten, [FLATTEN, norm(rng(), 128), dense(rng(), 128, 3)]),
        (absorb_flatten, [("Reshape", {"target_shape": [1, 1, 128]}, {}), conv(rng(), (1, 1), 64, 2, groups=2)]),
        (absorb_flatten, [("Reshape", {"target_shape": [1, 2, 64]}, {}), conv(rng(), (1, 1), 64, 2)]),
        (absorb_transpose, [TURNED, RELU]),
        (absorb_transpose, [TURNED, conv(rng(), (1, 1), 4, 2, sign=True)]),
        (store_exact_int8, [conv(rng(), (3, 3), 8, 2)]),
        (find_thresholds, [conv(rng(), (3, 3), 8, 2), norm(rng(), 2), dense(rng(), 2, 2, sign=True)]),
        (absorb_affine, [norm(rng(), 8), RELU, conv(rng(), (3, 3), 8, 2, sign=True)]),
        (fold_batch_norm, [conv(rng(), (3, 3), 8, 2), norm(rng(), 2), conv(rng(), (2, 2), 2, 2, sign=True)]),
        (fuse_activations, [POOL, RELU]),
        (keep_integers, [LEVELS, ("AveragePooling2D", {}, {})]),
        (read_integers, [LEVELS, norm(rng(), 8), qconv("binary(alpha=1)")]),
        (read_integers, [LEVELS, conv(rng(), (3, 3), 8, 2)]),
        (read_signs, [activation("binary(alpha=0.5)", "half"), norm(rng(), 8), qconv("binary(alpha=1)")]),
        (read_signs, [activation("binary", "sign"), qconv("quantized_bits(3,0,1,alpha=1)")]),
        (read_signs, [SIGN, ("Rescaling", {"scale": 0.5, "offset": 0.25}, {}), qconv("binary(alpha=1)")]),
    ],
)
def test_a_pass_leaves_other_graphs_alone(step: Pass, layers: list[Any]) -> None:
    graph = graph_of(*layers)
    assert step(graph).text() == graph.text()


@pytest.mark.parametrize("channels", [4, 12])
def test_filters_with_zeros_read_signs_of_whole_bytes_alone(channels: int) -> None:
    graph = graph_of(SIGN, qconv("ternary(alpha=1)", inputs=channels), shape=(4, 4, channels))
    after = run_passes(graph)
    assert "filter:int8" in text(after) and "concat" not in text(after)
    same(graph, after)


def test_shifted_signs_are_read_where_nothing_is_padded() -> None:
    """Rescaled signs of 1/4 and 3/4 are no sign outside the image; with a pad value they could be none."""
    graph = graph_of(SIGN, ("Rescaling", {"scale": 0.25, "offset": 0.5}, {}), qconv("binary(alpha=1)", padding="valid"))
    after = run_passes(graph)
    assert "conv2d sign filter:bits" in text(after)
    same(graph, after)


def test_a_tensor_that_is_an_output_too_is_not_folded_away() -> None:
    made = model_of(conv(rng(), (3, 3), 8, 2), norm(rng(), 2, name="norm"), shape=(4, 4, 8))
    graph = read_graph(model_of(calls=made.calls, outputs=("layer0", "norm"), output_names=("a", "b"), shape=(4, 4, 8)))
    after = run_passes(graph)
    assert after.outputs == ("layer0", "norm")
    same(graph, after)


def test_bytes_are_not_read_where_sums_would_round() -> None:
    wide = graph_of(("Rescaling", {"scale": 2.0**-8}, {}), conv(rng(), (3, 3), 600, 2, grid=1.0), shape=(3, 3, 600), dtype="uint8")
    assert "conv2d image" in text(run_passes(wide))
    heavy = model_of(("Rescaling", {"scale": 2.0**-8}, {}), conv(rng(), (3, 3), 600, 2, grid=1.0), shape=(3, 3, 600))
    heavy.calls[1].weights["kernel"][...] = 127  # type: ignore[index]
    assert "affine image" in text(run_passes(read_graph(heavy, input_dtype="uint8")))


def test_scales_that_are_no_powers_of_two_keep_their_float_arithmetic() -> None:
    graph = graph_of(("Rescaling", {"scale": 1 / 255}, {}), conv(rng(), (3, 3), 8, 2, grid=0.25), dtype="uint8")
    after = run_passes(graph)
    assert "affine image" in text(after)
    same(graph, after)
