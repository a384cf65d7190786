"""The plain networks of `edge.zoo`: convolutions and pools, or dense layers alone."""

from __future__ import annotations

from edge.zoo_writer import Model, Writer

# -- plain convolutional networks ----------------------------------------------------------------------------------------------


def lenet(precision: str = "float", *, width: float = 1.0) -> Model:
    """5x5x32, 5x5x64, dense 1024, for 28x28 grey pictures of 10 classes: 3.3 million weights."""
    net = Writer("lenet", (28, 28, 1), precision, width)
    net.conv(32, 5, pool=(2, 2)).conv(64, 5, pool=(2, 2)).dense(1024, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def digits8(precision: str = "float", *, width: float = 1.0) -> Model:
    """5x5x32, 5x5x64, dense 1000, for 28x28 grey pictures of 10 classes."""
    net = Writer("digits8", (28, 28, 1), precision, width)
    net.conv(32, 5, pool=(2, 2)).conv(64, 5, pool=(2, 2)).dense(1000, is_last_hidden=True)
    return net.model(net.classes(10))


def alexnet(precision: str = "float", *, width: float = 1.0) -> Model:
    """CaffeNet without groups, for 227x227 colour pictures of 102 classes: 58.7 million weights.

    The float net normalizes over neighbouring channels behind its first two pools, with Caffe's numbers; nets with 1-bit weights have
    their batch norms instead, and the folded one has none.
    """
    net = Writer("alexnet", (227, 227, 3), precision, width)
    net.conv(96, 11, strides=4, padding="valid", pool=(3, 2)).local_norm().conv(256, 5, pool=(3, 2)).local_norm()
    net.conv(384, 3).conv(384, 3).conv(256, 3, pool=(3, 2))
    net.dense(4096, dropout=0.5).dense(4096, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(102))


def cnn_cifar10(precision: str = "float", *, width: float = 1.0) -> Model:
    """Twice two 3x3 convolutions, of 32 and of 64 channels, and dense 512, for 32x32 colour pictures of 10 classes."""
    net = Writer("cnn-cifar10", (32, 32, 3), precision, width)
    for channels in (32, 64):
        net.conv(channels, 3).conv(channels, 3, padding="valid", pool=(2, 2)).dropout(0.25)
    net.dense(512, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_base(precision: str = "float", *, width: float = 1.0) -> Model:
    """3x3x32, 3x3x64, dense 128, for 28x28 grey pictures of 10 classes: 1.2 million weights."""
    net = Writer("cnn-base", (28, 28, 1), precision, width)
    net.conv(32, 3, padding="valid").conv(64, 3, padding="valid", pool=(2, 2)).dropout(0.25)
    net.dense(128, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_digits(precision: str = "float", *, width: float = 1.0) -> Model:
    """Four 3x3 convolutions and dense 128, for 28x28 grey pictures of 10 classes."""
    net = Writer("cnn-digits", (28, 28, 1), precision, width)
    net.conv(32, 3, padding="valid").conv(64, 3, padding="valid").conv(64, 3, padding="valid").norm().dropout(0.1)
    net.conv(64, 3, padding="valid", pool=(2, 2)).norm().dense(128, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_fashion(precision: str = "float", *, width: float = 1.0) -> Model:
    """Four 3x3 convolutions with batch norm and dense 128, for 28x28 grey pictures of 10 classes."""
    net = Writer("cnn-fashion", (28, 28, 1), precision, width)
    net.conv(64, 3, padding="valid").norm().conv(64, 3, padding="valid").norm().dropout(0.1).conv(64, 3, padding="valid").norm()
    net.conv(32, 3, padding="valid", pool=(2, 2)).norm().dropout(0.1).dense(128, dropout=0.1, is_last_hidden=True)
    return net.model(net.classes(10))


def cnn_mnist(precision: str = "float", *, width: float = 1.0) -> Model:
    """5x5x32, 3x3x48, 3x3x64, dense 96, for 28x28 grey pictures of 10 classes: 98,778 weights."""
    net = Writer("cnn-mnist", (28, 28, 1), precision, width)
    net.conv(32, 5, pool=(3, 2)).conv(48, 3, padding="valid", pool=(3, 2)).conv(64, 3, padding="valid")
    net.dense(96, dropout=0.5, is_last_hidden=True)
    return net.model(net.classes(10))


def clock(precision: str = "float", *, width: float = 1.0) -> Model:
    """Four convolutions with pools and dense 128 for 150x150 grey pictures of clocks; two answers: 12 hours and 60 minutes."""
    net = Writer("clock", (150, 150, 1), precision, width)
    net.conv(64, 4, strides=2, padding="valid", pool=(2, 2)).dropout(0.1).conv(64, 4, padding="valid", pool=(2, 2)).dropout(0.1)
    net.conv(128, 3, padding="valid", pool=(2, 2)).dropout(0.1).conv(256, 3, padding="valid", pool=(2, 2)).dropout(0.1)
    trunk = net.dense(128).at
    hour = net.dense(64, is_last_hidden=True).classes(12, name="hour")
    net.at = trunk
    return net.model(hour, net.dense(256, is_last_hidden=True).classes(60, name="minute"))


# -- dense networks ------------------------------------------------------------------------------------------------------------


def mlp_base(precision: str = "float", *, width: float = 1.0) -> Model:
    """Dense 512 twice, for 28x28 grey pictures of 10 classes."""
    net = Writer("mlp-base", (28, 28, 1), precision, width)
    net.dense(512, dropout=0.2).dense(512, dropout=0.2, is_last_hidden=True)
    return net.model(net.classes(10))


def mlp_digits(precision: str = "float", *, width: float = 1.0) -> Model:
    """Dense 1024 with batch norm, dense 524, for 28x28 grey pictures of 10 classes."""
    net = Writer("mlp-digits", (28, 28, 1), precision, width)
    net.dense(1024).norm().dropout(0.1).dense(524, is_last_hidden=True)
    return net.model(net.classes(10))


def mlp_fashion(precision: str = "float", *, width: float = 1.0) -> Model:
    """Dense 1024 with batch norm, dense 524 twice, for 28x28 grey pictures of 10 classes."""
    net = Writer("mlp-fashion", (28, 28, 1), precision, width)
    net.dense(1024).norm().dense(524, dropout=0.1).dense(524, is_last_hidden=True)
    return net.model(net.classes(10))
