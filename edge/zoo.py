"""The networks of this project, each as one small function that returns an untrained Keras 3 model.

    from edge import zoo

    model = zoo.lenet("xnor")
    model = zoo.build("resnet(5)", "xnor-weights", width=1.5)

Every network takes pictures of bytes 0..255, which its first layer brings to 0..1, and gives one probability per class; generators (of
`edge.zoo_generative`) take noise and give pictures. `precision` says how it is computed:

| precision      | weights                                       | activations between layers                | scale                  |
|----------------|-----------------------------------------------|-------------------------------------------|------------------------|
| float          | float                                         | ReLU; batch norm where the network has it | -                      |
| folded         | float                                         | ReLU alone                                | -                      |
| xnor-weights   | signs, first convolution and last layer float | batch norm, ReLU                          | alpha of each filter   |
| dorefa-weights | the same                                      | batch norm, ReLU                          | one alpha for a layer  |
| xnor           | the same                                      | batch norm, sign                          | that of the batch norm |
| xnor-k         | the same                                      | batch norm, sign                          | alpha and K            |
| dorefa-2, 3, 4 | 2, 3, 4 bits, first and last layer float      | batch norm, as many bits from 0 to 1      | -                      |

`folded` is the float network once its norms are folded, the peer of benchmarks; K is XNOR-Net's magnitude of what each output sees.

The sign of a layer's input belongs to the layer that reads it (`edge.training.QuantConv2D`); max-pools stand between a convolution and its
batch norm there, so that they pool sums. `width` multiplies the channels of all layers but the last, rounded to a multiple of 8.
Keras is imported when a network is built. To add one, write its function and put it into `NETWORKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from edge.errors import unknown_name
from edge.zoo_generative import (
    cgan_digits,
    cgan_digits_discriminator,
    dcgan_color,
    dcgan_color_discriminator,
    dcgan_faces,
    dcgan_faces_discriminator,
    gan_digits,
    gan_digits_discriminator,
)
from edge.zoo_plain import (
    alexnet,
    clock,
    cnn_base,
    cnn_cifar10,
    cnn_digits,
    cnn_fashion,
    cnn_mnist,
    digits8,
    lenet,
    mlp_base,
    mlp_digits,
    mlp_fashion,
)
from edge.zoo_residual import resnet, resnet_cifar100
from edge.zoo_writer import PRECISIONS, QUANTIZED, SIGNS, Model

NETWORKS: Mapping[str, Callable[..., Model]] = {
    "lenet": lenet,
    "alexnet": alexnet,
    "resnet(2)": partial(resnet, 2),
    "resnet(5)": partial(resnet, 5),
    "resnet(18)": partial(resnet, 18),
    "resnet(2)-shortcuts": partial(resnet, 2, shortcuts=2),
    "resnet(5)-shortcuts": partial(resnet, 5, shortcuts=2),
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
"""`resnet(n)-shortcuts` has an identity around every convolution, where `resnet(n)`, as it was described, has one around every two."""

GENERATORS: Mapping[str, Callable[..., Model]] = {
    "gan-digits": gan_digits,
    "cgan-digits": cgan_digits,
    "dcgan-faces": dcgan_faces,
    "dcgan-color": dcgan_color,
}
"""Networks that make pictures: of noise, of noise and a class, of a grey picture."""

DISCRIMINATORS: Mapping[str, Callable[..., Model]] = {
    "gan-digits": gan_digits_discriminator,
    "cgan-digits": cgan_digits_discriminator,
    "dcgan-faces": dcgan_faces_discriminator,
    "dcgan-color": dcgan_color_discriminator,
}
"""By generator, the network that it is trained against."""

__all__ = [
    "DISCRIMINATORS", "GENERATORS", "NETWORKS", "PRECISIONS", "QUANTIZED", "SIGNS", "alexnet", "build", "cgan_digits", "clock", "cnn_base",
    "cnn_cifar10", "cnn_digits", "cnn_fashion", "cnn_mnist", "dcgan_color", "dcgan_faces", "digits8", "gan_digits", "lenet", "mlp_base",
    "mlp_digits", "mlp_fashion", "resnet", "resnet_cifar100",
]  # fmt: skip


def build(name: str, precision: str = "float", *, width: float = 1.0) -> Model:
    """The network of this name, untrained. Raises `InputError` for an unknown name or precision, `MissingPackage` without Keras."""
    networks = {**NETWORKS, **GENERATORS}
    if name not in networks:
        raise unknown_name("network", name, networks)
    return networks[name](precision, width=width)
