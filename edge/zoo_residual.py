"""The residual networks of `edge.zoo`."""

from __future__ import annotations

from edge.errors import InputError
from edge.zoo_writer import Model, Writer, keras_package


def resnet(n: int, precision: str = "float", *, width: float = 1.0, shortcuts: int = 1) -> Model:
    """6n + 2 layers for 32x32 colour pictures of 10 classes: n blocks of 16, of 32 and of 64 channels, pools between.

    A block is norm, ReLU or sign, 3x3 convolution, twice, and the identity added; with `shortcuts` 2 the identity is added after each
    convolution, as networks of signs are usually built. Channels double behind a pool by channels of zeros. Without norms ("folded")
    a sum goes through its ReLU once for all that read it, which is faster wherever sum and ReLU are one operation.
    """
    if n < 1 or shortcuts not in (1, 2):
        raise InputError(f"resnet(n) has n >= 1 blocks of each width and 1 or 2 shortcuts a block, got n = {n} and {shortcuts} shortcuts")
    net = Writer(f"resnet-{n}", (32, 32, 3), precision, width)
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


def _block(net: Writer, channels: int, shortcuts: int) -> None:
    identity = net.at
    for half in (1, 2):
        _before(net)
        net.weights("Conv2D", channels, 3, padding="same")
        if half == 2 or shortcuts == 2:
            net.at = net.layers.Add(name=f"add{net.count}")([net.at, identity])
        _behind(net)
        identity = net.at if half == 2 or shortcuts == 2 else identity


def _before(net: Writer, *, is_last: bool = False) -> None:
    """What a convolution of a residual network reads: norm and ReLU, or norm alone where it takes the sign itself."""
    net.norm(trained=net.has_norms)
    if (net.precision != "folded" and not net.quantizes_inputs) or (is_last and net.quantizes_inputs):
        net.at = net.layers.ReLU(name=f"relu{net.count}")(net.at)


def _behind(net: Writer) -> None:
    if net.precision == "folded":
        net.at = net.layers.ReLU(name=f"relu{net.count}")(net.at)


def _halve(net: Writer, channels: int) -> None:
    """Half the height and width, and `channels` channels, the new ones zero."""
    net.at = net.layers.AveragePooling2D(2, name=f"pool{net.count}")(net.at)
    net.at = keras_package().ops.pad(net.at, [[0, 0], [0, 0], [0, 0], [0, channels - net.at.shape[-1]]])


def resnet_cifar100(precision: str = "float", *, width: float = 1.0) -> Model:
    """Three stages of bottleneck blocks with ELU, for 32x32 colour pictures of 100 classes."""
    net = Writer("resnet-cifar100", (32, 32, 3), precision, width)
    net.conv(64, 3, activation="elu").conv(128, 3, activation="elu").dropout(0.25)
    for channels in (128, 256, 512):
        _bottleneck(net, net.channels(channels), stride=2)
        for _ in range(2):
            _bottleneck(net, net.channels(channels), stride=1)
        net.dropout(0.25, floats_read_it=channels == 512)
    if net.quantizes_inputs:
        net.at = net.layers.Activation("elu", name="elu")(net.at)
    net.at = net.layers.GlobalAveragePooling2D(name="pool")(net.at)
    return net.model(net.classes(100))


def _bottleneck(net: Writer, channels: int, *, stride: int) -> None:
    """1x1 to a quarter of the channels, 3x3, 1x1 back, and the identity, or a strided 1x1 convolution of it, added."""
    source = net.at
    quarter = channels // 4
    for filters, size, strides in ((quarter, 1, stride), (quarter, 3, 1), (channels, 1, 1)):
        net.weights("Conv2D", filters, size, strides=strides, padding="same")
        if net.has_norms:
            net.norm(trained=True)
        if not net.quantizes_inputs:
            net.at = net.layers.Activation("elu", name=f"elu{net.count}")(net.at)
    inner, net.at = net.at, source
    if stride > 1 or source.shape[-1] != channels:
        net.weights("Conv2D", channels, 1, strides=stride, padding="same")
        if net.has_norms:
            net.norm(trained=True)
    net.at = net.layers.Add(name=f"add{net.count}")([inner, net.at])
    if not net.quantizes_inputs:
        net.at = net.layers.Activation("elu", name=f"elu_add{net.count}")(net.at)
