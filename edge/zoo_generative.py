"""The networks of `edge.zoo` that make pictures, and the ones they are trained against.

A generator takes noise, noise and a class, or a grey picture of bytes, and gives a picture of -1..1. Its discriminator takes such a
picture, and the class or the grey picture with it, and gives the probability that it is a real one. Both come at every precision of
`edge.zoo`; the layer that reads noise has weights of 1 bit, too, the last one is float. Transposed convolutions are without K.
"""

from __future__ import annotations

from edge.zoo_writer import Model, Tensor, Writer, keras_package

NOISE, CLASSES = 100, 10  # numbers of noise; digits
_LEAK = 0.2
_CLASS_VECTOR = 50  # numbers that stand for a class in the generator


# -- digits --------------------------------------------------------------------------------------------------------------------


def gan_digits(precision: str = "float", *, width: float = 1.0) -> Model:
    """100 numbers of noise to a 28x28 grey picture: dense 7x7x128, transposed 4x4x64, 4x4x32, 3x3x1, tanh."""
    net = Writer("gan-digits", (NOISE,), precision, width, source="noise", scale=None)
    return _digit(net)


def cgan_digits(precision: str = "float", *, width: float = 1.0) -> Model:
    """100 numbers of noise and the digit asked for to a 28x28 grey picture: `gan-digits` with a class."""
    net = Writer("cgan-digits", (NOISE,), precision, width, source="noise", scale=None)
    net.at = net.layers.Concatenate(name="both")([net.at, _class_vector(net, _CLASS_VECTOR)])
    return _digit(net)


def _digit(net: Writer) -> Model:
    _seed(net, 7, 128)
    for channels in (64, 32):
        _grow(net, channels)
    return net.model(_picture(net, 1, 3, strides=1))


def gan_digits_discriminator(precision: str = "float", *, width: float = 1.0) -> Model:
    """A 28x28 grey picture of -1..1 to the probability that it is real: 4x4x64 and 4x4x128, stride 2, dropout .3, dense 1."""
    return _tells_digits(Writer("gan-digits-discriminator", (28, 28, 1), precision, width, scale=None))


def cgan_digits_discriminator(precision: str = "float", *, width: float = 1.0) -> Model:
    """A 28x28 grey picture of -1..1 and its digit to the probability that it is a real one of that digit."""
    net = Writer("cgan-digits-discriminator", (28, 28, 1), precision, width, scale=None)
    plane = net.layers.Reshape((28, 28, 1), name="label_plane")(_class_vector(net, 28 * 28))
    net.at = net.layers.Concatenate(name="both")([net.at, plane])
    return _tells_digits(net)


def _tells_digits(net: Writer) -> Model:
    for channels in (64, 128):
        _shrink(net, channels)
        net.dropout(0.3)
    return net.model(_verdict(net))


# -- colour pictures -----------------------------------------------------------------------------------------------------------


def dcgan_faces(precision: str = "float", *, width: float = 1.0) -> Model:
    """100 numbers of noise to a 64x64 colour picture: dense 4x4x512, transposed 4x4x256, 128, 64, 3, tanh."""
    net = Writer("dcgan-faces", (NOISE,), precision, width, source="noise", scale=None)
    _seed(net, 4, 512)
    for channels in (256, 128, 64):
        _grow(net, channels)
    return net.model(_picture(net, 3, 4, strides=2))


def dcgan_faces_discriminator(precision: str = "float", *, width: float = 1.0) -> Model:
    """A 64x64 colour picture of -1..1 to the probability that it is real: 4x4x64, 128, 256, 512, stride 2, dense 1."""
    net = Writer("dcgan-faces-discriminator", (64, 64, 3), precision, width, scale=None)
    for channels in (64, 128, 256, 512):
        _shrink(net, channels)
    return net.model(_verdict(net))


def dcgan_color(precision: str = "float", *, width: float = 1.0) -> Model:
    """A 32x32 grey picture of bytes to a colour picture: 4x4x64, 128, 256, stride 2, and back up, each size beside its own."""
    net = Writer("dcgan-color", (32, 32, 1), precision, width, source="grey", scale=1 / 127.5, offset=-1.0)
    beside: list[Tensor] = []
    for channels in (64, 128, 256):
        _shrink(net, channels)
        beside.append(net.at)
    for channels, same_size in zip((128, 64), beside[-2::-1], strict=True):
        _grow(net, channels)
        net.at = net.layers.Concatenate(name=f"beside{net.count}")([net.at, same_size])
    return net.model(_picture(net, 3, 4, strides=2))


def dcgan_color_discriminator(precision: str = "float", *, width: float = 1.0) -> Model:
    """A 32x32 colour picture of -1..1 and the grey one of bytes to the probability that the colours are real."""
    net = Writer("dcgan-color-discriminator", (32, 32, 3), precision, width, scale=None)
    grey = net.layers.Rescaling(1 / 127.5, -1.0, name="rescale")(net.input((32, 32, 1), "grey"))
    net.at = net.layers.Concatenate(name="both")([net.at, grey])
    for channels in (64, 128, 256):
        _shrink(net, channels)
    return net.model(_verdict(net))


# -- parts ---------------------------------------------------------------------------------------------------------------------


def _class_vector(net: Writer, size: int) -> Tensor:
    """A further input, the class, and the numbers that stand for it, at first as large as noise, or the class is drowned in it."""
    label = net.input((1,), "label", dtype="int32")
    numbers = keras_package().initializers.RandomNormal(stddev=1.0)
    vector = net.layers.Embedding(CLASSES, size, embeddings_initializer=numbers, name="label_vector")(label)
    return net.layers.Flatten(name="label_flat")(vector)


def _seed(net: Writer, size: int, channels: int) -> None:
    """A dense layer to the smallest picture, size x size."""
    depth = net.channels(channels)
    net.weights("Dense", size * size * depth)
    net.at = net.layers.Reshape((size, size, depth), name="picture_of_noise")(net.at)
    _behind(net)


def _grow(net: Writer, channels: int) -> None:
    """Twice the height and width."""
    net.weights("Conv2DTranspose", net.channels(channels), 4, strides=2, padding="same")
    _behind(net)


def _shrink(net: Writer, channels: int) -> None:
    """Half the height and width."""
    net.weights("Conv2D", net.channels(channels), 4, strides=2, padding="same", first=net.count == 0)
    _behind(net)


def _behind(net: Writer) -> None:
    """Batch norm, and a leaky ReLU where the next layer takes no signs."""
    if net.precision != "folded":
        net.norm(trained=True)
    if not net.quantizes_inputs:
        net.at = net.layers.LeakyReLU(_LEAK, name=f"leaky{net.count}")(net.at)


def _leaky(net: Writer) -> Tensor:
    """What the last layer, a float one, reads."""
    return net.layers.LeakyReLU(_LEAK, name="leaky")(net.at) if net.quantizes_inputs else net.at


def _picture(net: Writer, channels: int, size: int, *, strides: int) -> Tensor:
    make = net.layers.Conv2DTranspose(channels, size, strides=strides, padding="same", activation="tanh", name="picture")
    return make(_leaky(net))


def _verdict(net: Writer) -> Tensor:
    flat = net.layers.Flatten(name="flatten")(_leaky(net))
    return net.layers.Activation("sigmoid", name="real")(net.layers.Dense(1, name="logit")(flat))


def logit_of(discriminator: Model) -> Model:
    """The same network before its sigmoid, sharing its weights."""
    return keras_package().Model(discriminator.input, discriminator.get_layer("logit").output)
