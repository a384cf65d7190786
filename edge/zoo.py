"""The networks of this project, each as one small function that returns an untrained Keras 3 model.

    from edge import zoo

    model = zoo.lenet("binary")
    model = zoo.build("resnet(5)", "weights", width=1.5)

Every network takes pictures of bytes 0..255, which its first layer brings to 0..1, and gives one probability per class. `precision` says
how it is computed:

| precision | weights                     | activations between layers                              | edge convert               |
|-----------|-----------------------------|---------------------------------------------------------|----------------------------|
| float     | float                       | ReLU; batch norm where the network has it               | --bits 32, 8 or 1          |
| folded    | float                       | ReLU alone: the float network once its norms are folded | the peer of benchmarks     |
| weights   | signs, first and last float | batch norm, ReLU                                        | --bits 1                   |
| binary    | signs, first and last float | batch norm, sign                                        | --bits 8 with --calibrate  |

The sign of a layer's input belongs to the layer that reads it (`edge.training.QuantConv2D`); max-pools stand between a convolution and its
batch norm there, so that they pool sums. `width` multiplies the channels of all layers but the last, rounded to a multiple of 8.
Keras is imported when a network is built. To add one, write its function and put it into `NETWORKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from edge.errors import InputError, MissingPackage

PRECISIONS = ("float", "folded", "weights", "binary")
PIXEL_STEP = 1 / 255

Model = Any
"""A Keras model, and `Tensor` one of its tensors (Keras publishes no types for them)."""
Tensor = Any


class _Writer:
    """A network being written: the tensor it has come to, the layers so far, and how each kind of layer looks at the precision asked for.

    Names count up, one number for each layer with weights: conv1, norm1, conv2, ...
    """

    def __init__(self, name: str, shape: tuple[int, int, int], precision: str, width: float) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"the precision of a network should be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if not width > 0:
            raise InputError(f"the width of a network should be above 0, got {width!r}; 1 is the network as it was described")
        self.layers = _keras().layers
        self.name, self.precision, self.width, self.count = name, precision, width, 0
        self.picture = self.layers.Input(shape, name="picture")
        self.at = self.layers.Rescaling(PIXEL_STEP, name="rescale")(self.picture)

    @property
    def is_binary(self) -> bool:
        return self.precision == "binary"

    @property
    def has_norms(self) -> bool:
        return self.precision in ("weights", "binary")

    def channels(self, count: int) -> int:
        """`count` times the width, a multiple of 8 unless the width is 1."""
        return count if self.width == 1 else max(8, 8 * round(count * self.width / 8))

    # -- layers with weights ---------------------------------------------------------------------------------------------------

    def weights(self, kind: str, size: int, *args: Any, first: bool = False, bias: bool = True, **kwargs: Any) -> _Writer:
        """A `Conv2D` or `Dense` of `size` channels alone: of signs unless it is the `first`, where the precision says so."""
        self.count += 1
        name = f"{'conv' if kind == 'Conv2D' else 'dense'}{self.count}"
        if first or not self.has_norms:
            make = partial(getattr(self.layers, kind), use_bias=bias and not self.has_norms)
        else:
            make = partial(_quantized(kind), **self._quantizers(), use_bias=False)
        self.at = make(size, *args, name=name, **kwargs)(self.at)
        return self

    def _quantizers(self) -> dict[str, str]:
        """Of a layer with signs; pixels have none, so a dense layer that reads the picture takes them as they are."""
        signs = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
        return {**signs, "input_quantizer": "ste_sign"} if self.is_binary and self.count > 1 else signs

    def conv(self, filters: int, size: int, *, pool: tuple[int, int] | None = None, activation: str = "relu", **kwargs: Any) -> _Writer:
        """A convolution, what makes it non-linear, and a max-pool (window, stride)."""
        self.weights("Conv2D", self.channels(filters), size, first=self.count == 0, **{"padding": "same", **kwargs})
        return self._finish(activation, pool)

    def dense(self, units: int, *, dropout: float = 0.0, is_last_hidden: bool = False) -> _Writer:
        """A dense layer, what makes it non-linear, and dropout; the last hidden one gives ReLU, which the float `classes` read."""
        if len(self.at.shape) > 2:
            self.at = self.layers.Flatten(name="flatten")(self.at)
        self.weights("Dense", self.channels(units))
        self._finish("relu", None)
        if self.is_binary and is_last_hidden:
            self.at = self.layers.ReLU(name=f"relu{self.count}")(self.at)
        return self.dropout(dropout)

    def _finish(self, activation: str, pool: tuple[int, int] | None) -> _Writer:
        """Activation and pool; in networks of signs batch norm, before it the pool where the next layer takes the sign."""
        if self.is_binary:
            return self.pool(pool).norm(trained=True)
        if self.has_norms:
            self.norm(trained=True)
        self.at = self.layers.Activation(activation, name=f"{activation}{self.count}")(self.at)
        return self.pool(pool)

    def classes(self, count: int, *, name: str = "logits") -> Tensor:
        """The last layer, float at every precision, and its probabilities."""
        flat = self.at if len(self.at.shape) == 2 else self.layers.Flatten(name="flatten")(self.at)
        return self.layers.Softmax(name=f"{name}_probabilities")(self.layers.Dense(count, name=name)(flat))

    # -- layers without --------------------------------------------------------------------------------------------------------

    def norm(self, *, trained: bool = False) -> _Writer:
        """Batch norm, as a network describes it for floats (then only there); `trained` for one that signs need."""
        if trained or self.precision == "float":
            self.at = self.layers.BatchNormalization(momentum=0.9, name=self._free(f"norm{self.count}"))(self.at)
        return self

    def _free(self, name: str) -> str:
        """A name for a further norm behind one layer."""
        taken = getattr(self.at, "_keras_history", None)
        return f"{name}b" if taken is not None and taken.operation.name.startswith(name) else name

    def pool(self, window_and_stride: tuple[int, int] | None) -> _Writer:
        if window_and_stride is not None:
            window, stride = window_and_stride
            self.at = self.layers.MaxPooling2D(window, stride, name=f"pool{self.count}")(self.at)
        return self

    def dropout(self, rate: float) -> _Writer:
        if rate:
            self.at = self.layers.Dropout(rate, name=f"dropout{self.count}")(self.at)
        return self

    def model(self, *outputs: Tensor) -> Model:
        return _keras().Model(self.picture, outputs if len(outputs) > 1 else outputs[0], name=self.name)


def _keras() -> Any:
    try:
        import keras
    except ModuleNotFoundError as err:
        raise MissingPackage(
            "a network of edge.zoo is a Keras 3 model, but Keras cannot be imported; install it with: pip install tensorflow"
        ) from err
    return keras


def _quantized(kind: str) -> Any:
    from edge import training

    return {"Conv2D": training.QuantConv2D, "Dense": training.QuantDense}[kind]


# -- plain convolutional networks ----------------------------------------------------------------------------------------------


def lenet(precision: str = "float", *, width: float = 1.0) -> Model:
    """5x5x32, 5x5x64, dense 1024, for 28x28 grey pictures of 10 classes: 3.3 million weights."""
    net = _Writer("lenet", (28, 28, 1), precision, width)
    net.conv(32, 5, pool=(2, 2)).conv(64, 5, pool=(2, 2)).dense(1024, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def digits8(precision: str = "float", *, width: float = 1.0) -> Model:
    """5x5x32, 5x5x64, dense 1000, for 28x28 grey pictures of 10 classes."""
    net = _Writer("digits8", (28, 28, 1), precision, width)
    net.conv(32, 5, pool=(2, 2)).conv(64, 5, pool=(2, 2)).dense(1000, is_last_hidden=True)
    return net.model(net.classes(10))


def alexnet(precision: str = "float", *, width: float = 1.0) -> Model:
    """CaffeNet without groups, for 227x227 colour pictures of 102 classes: 58.7 million weights.

    The source normalizes over neighbouring channels after two of its pools; Keras has no such layer, and batch norm stands in its place.
    """
    net = _Writer("alexnet", (227, 227, 3), precision, width)
    net.conv(96, 11, strides=4, padding="valid", pool=(3, 2)).norm().conv(256, 5, pool=(3, 2)).norm()
    net.conv(384, 3).conv(384, 3).conv(256, 3, pool=(3, 2))
    net.dense(4096, dropout=0.5).dense(4096, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(102))


def cnn_cifar10(precision: str = "float", *, width: float = 1.0) -> Model:
    """Twice two 3x3 convolutions, of 32 and of 64 channels, and dense 512, for 32x32 colour pictures of 10 classes."""
    net = _Writer("cnn-cifar10", (32, 32, 3), precision, width)
    for channels in (32, 64):
        net.conv(channels, 3).conv(channels, 3, padding="valid", pool=(2, 2)).dropout(0.25)
    net.dense(512, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_base(precision: str = "float", *, width: float = 1.0) -> Model:
    """3x3x32, 3x3x64, dense 128, for 28x28 grey pictures of 10 classes: 1.2 million weights."""
    net = _Writer("cnn-base", (28, 28, 1), precision, width)
    net.conv(32, 3, padding="valid").conv(64, 3, padding="valid", pool=(2, 2)).dropout(0.25)
    net.dense(128, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_digits(precision: str = "float", *, width: float = 1.0) -> Model:
    """Four 3x3 convolutions and dense 128, for 28x28 grey pictures of 10 classes."""
    net = _Writer("cnn-digits", (28, 28, 1), precision, width)
    net.conv(32, 3, padding="valid").conv(64, 3, padding="valid").conv(64, 3, padding="valid").norm().dropout(0.1)
    net.conv(64, 3, padding="valid", pool=(2, 2)).norm().dense(128, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_fashion(precision: str = "float", *, width: float = 1.0) -> Model:
    """Four 3x3 convolutions with batch norm and dense 128, for 28x28 grey pictures of 10 classes."""
    net = _Writer("cnn-fashion", (28, 28, 1), precision, width)
    net.conv(64, 3, padding="valid").norm().conv(64, 3, padding="valid").norm().dropout(0.1).conv(64, 3, padding="valid").norm()
    net.conv(32, 3, padding="valid", pool=(2, 2)).norm().dropout(0.1).dense(128, dropout=0.1, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_mnist(precision: str = "float", *, width: float = 1.0) -> Model:
    """5x5x32, 3x3x48, 3x3x64, dense 96, for 28x28 grey pictures of 10 classes: 98,778 weights."""
    net = _Writer("cnn-mnist", (28, 28, 1), precision, width)
    net.conv(32, 5, pool=(3, 2)).conv(48, 3, padding="valid", pool=(3, 2)).conv(64, 3, padding="valid")
    net.dense(96, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def clock(precision: str = "float", *, width: float = 1.0) -> Model:
    """Four convolutions with pools and dense 128 for 150x150 grey pictures of clocks; two answers: 12 hours and 60 minutes."""
    net = _Writer("clock", (150, 150, 1), precision, width)
    net.conv(64, 4, strides=2, padding="valid", pool=(2, 2)).dropout(0.1).conv(64, 4, padding="valid", pool=(2, 2)).dropout(0.1)
    net.conv(128, 3, padding="valid", pool=(2, 2)).dropout(0.1).conv(256, 3, padding="valid", pool=(2, 2)).dropout(0.1)
    trunk = net.dense(128).at
    hour = net.dense(64, is_last_hidden=True).classes(12, name="hour")
    net.at = trunk
    return net.model(hour, net.dense(256, is_last_hidden=True).classes(60, name="minute"))


# -- dense networks ------------------------------------------------------------------------------------------------------------


def mlp_base(precision: str = "float", *, width: float = 1.0) -> Model:
    """Dense 512 twice, for 28x28 grey pictures of 10 classes."""
    net = _Writer("mlp-base", (28, 28, 1), precision, width)
    net.dense(512, dropout=0.2).dense(512, dropout=0.2, is_last_hidden=True)
    return net.model(net.classes(10))


def mlp_digits(precision: str = "float", *, width: float = 1.0) -> Model:
    """Dense 1024 with batch norm, dense 524, for 28x28 grey pictures of 10 classes."""
    net = _Writer("mlp-digits", (28, 28, 1), precision, width)
    net.dense(1024).norm().dropout(0.1).dense(524, is_last_hidden=True)
    return net.model(net.classes(10))


def mlp_fashion(precision: str = "float", *, width: float = 1.0) -> Model:
    """Dense 1024 with batch norm, dense 524 twice, for 28x28 grey pictures of 10 classes."""
    net = _Writer("mlp-fashion", (28, 28, 1), precision, width)
    net.dense(1024).norm().dense(524, dropout=0.1).dense(524, is_last_hidden=True)
    return net.model(net.classes(10))


# -- residual networks ---------------------------------------------------------------------------------------------------------


def resnet(n: int, precision: str = "float", *, width: float = 1.0, shortcuts: int = 1) -> Model:
    """6n + 2 layers for 32x32 colour pictures of 10 classes: n blocks of 16, of 32 and of 64 channels, pools between.

    A block is norm, ReLU or sign, 3x3 convolution, twice, and the identity added; with `shortcuts` 2 the identity is added after each
    convolution, as networks of signs are usually built. Channels double behind a pool by channels of zeros. Without norms ("folded")
    a sum goes through its ReLU once for all that read it, which is faster wherever sum and ReLU are one operation.
    """
    if n < 1 or shortcuts not in (1, 2):
        raise InputError(f"resnet(n) has n >= 1 blocks of each width and 1 or 2 shortcuts a block, got n = {n} and {shortcuts} shortcuts")
    net = _Writer(f"resnet-{n}", (32, 32, 3), precision, width)
    net.weights("Conv2D", net.channels(16), 3, padding="same", first=True)
    _behind(net)
    for stage, channels in enumerate((16, 32, 64)):
        if stage:
            _halve(net, net.channels(channels))
        for _ in range(n):
            _block(net, net.channels(channels), shortcuts)
    _before(net, is_last=True)
    net.at = net.layers.GlobalAveragePooling2D(name="pool")(net.at)
    return net.model(net.classes(10))


def _block(net: _Writer, channels: int, shortcuts: int) -> None:
    identity = net.at
    for half in (1, 2):
        _before(net)
        net.weights("Conv2D", channels, 3, padding="same")
        if half == 2 or shortcuts == 2:
            net.at = net.layers.Add(name=f"add{net.count}")([net.at, identity])
        _behind(net)
        identity = net.at if half == 2 or shortcuts == 2 else identity


def _before(net: _Writer, *, is_last: bool = False) -> None:
    """What a convolution of a residual network reads: norm and ReLU, or norm alone where it takes the sign itself."""
    net.norm(trained=net.has_norms)
    if net.precision in ("float", "weights") or (is_last and net.is_binary):
        net.at = net.layers.ReLU(name=f"relu{net.count}")(net.at)


def _behind(net: _Writer) -> None:
    if net.precision == "folded":
        net.at = net.layers.ReLU(name=f"relu{net.count}")(net.at)


def _halve(net: _Writer, channels: int) -> None:
    """Half the height and width, and `channels` channels, the new ones zero."""
    net.at = net.layers.AveragePooling2D(2, name=f"pool{net.count}")(net.at)
    net.at = _keras().ops.pad(net.at, [[0, 0], [0, 0], [0, 0], [0, channels - net.at.shape[-1]]])


def resnet_cifar100(precision: str = "float", *, width: float = 1.0) -> Model:
    """Three stages of bottleneck blocks with ELU, for 32x32 colour pictures of 100 classes."""
    net = _Writer("resnet-cifar100", (32, 32, 3), precision, width)
    net.conv(64, 3, activation="elu").conv(128, 3, activation="elu").dropout(0.25)
    for channels in (128, 256, 512):
        _bottleneck(net, net.channels(channels), stride=2)
        for _ in range(2):
            _bottleneck(net, net.channels(channels), stride=1)
        net.dropout(0.25)
    if net.is_binary:
        net.at = net.layers.Activation("elu", name="elu")(net.at)
    net.at = net.layers.GlobalAveragePooling2D(name="pool")(net.at)
    return net.model(net.classes(100))


def _bottleneck(net: _Writer, channels: int, *, stride: int) -> None:
    """1x1 to a quarter of the channels, 3x3, 1x1 back, and the identity, or a strided 1x1 convolution of it, added."""
    source = net.at
    quarter = channels // 4
    for filters, size, strides in ((quarter, 1, stride), (quarter, 3, 1), (channels, 1, 1)):
        net.weights("Conv2D", filters, size, strides=strides, padding="same")
        if net.has_norms:
            net.norm(trained=True)
        if not net.is_binary:
            net.at = net.layers.Activation("elu", name=f"elu{net.count}")(net.at)
    inner, net.at = net.at, source
    if stride > 1 or source.shape[-1] != channels:
        net.weights("Conv2D", channels, 1, strides=stride, padding="same")
        if net.has_norms:
            net.norm(trained=True)
    net.at = net.layers.Add(name=f"add{net.count}")([inner, net.at])
    if not net.is_binary:
        net.at = net.layers.Activation("elu", name=f"elu_add{net.count}")(net.at)


# -- by name -------------------------------------------------------------------------------------------------------------------

NETWORKS: Mapping[str, Callable[..., Model]] = {
    "lenet": lenet,
    "alexnet": alexnet,
    "resnet(2)": partial(resnet, 2),
    "resnet(5)": partial(resnet, 5),
    "resnet(18)": partial(resnet, 18),
    "digits8": digits8,
    "mlp-base": mlp_base,
    "cnn-base": cnn_base,
    "mlp-digits": mlp_digits,
    "mlp-fashion": mlp_fashion,
    "cnn-digits": cnn_digits,
    "cnn-fashion": cnn_fashion,
    "clock": clock,
    "cnn-mnist": cnn_mnist,
    "cnn-cifar10": cnn_cifar10,
    "resnet-cifar100": resnet_cifar100,
}


def build(name: str, precision: str = "float", *, width: float = 1.0) -> Model:
    """The network of this name, untrained. Raises `InputError` for an unknown name or precision, `MissingPackage` without Keras."""
    if name not in NETWORKS:
        raise InputError(f"there is no network {name!r}, expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name](precision, width=width)
