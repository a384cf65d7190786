"""Keras layers that train what edge packs: quantizers with their gradients, and the layers that apply them.

    from edge.training import QuantConv2D, QuantDense, binarize

    model.add(QuantConv2D(64, 3, input_quantizer="ste_sign", kernel_quantizer="xnor_weights",
                          kernel_constraint="weight_clip", padding="same", use_bias=False))

Class names and config keys are Larq's (https://docs.larq.dev) where it has the layer or quantizer, so that one reader
understands both. A layer keeps float *latent* weights, which the optimizer changes; every forward pass sees them through
its quantizer. Scales are multiplied after the sums of signs, as the engine does it.

This module and the `edge.training_*` behind it are the ones of edge that import Keras at the top: a subclass needs its
base. Import it only to train, or to load a model with these layers. They use `keras.ops` alone, and so run on every
Keras 3 backend. docs/training.md has the table of quantizers, and what each costs at run time.

To add a quantizer, write a subclass of `Quantizer` under `@register_quantizer("its_name")`: `forward`, `gradient`,
`get_config`.
"""

from __future__ import annotations

from edge.training_base import Quantizer as Quantizer
from edge.training_base import ScaledQuantizer as ScaledQuantizer
from edge.training_base import Tensor as Tensor
from edge.training_base import get_quantizer as get_quantizer
from edge.training_base import register_quantizer as register_quantizer
from edge.training_base import serialize_quantizer as serialize_quantizer
from edge.training_binarize import ALGORITHMS as ALGORITHMS
from edge.training_binarize import Algorithm as Algorithm
from edge.training_binarize import binarize as binarize
from edge.training_binarize import find_algorithm as find_algorithm
from edge.training_layers import LocalResponseNormalization as LocalResponseNormalization
from edge.training_layers import QuantConv1D as QuantConv1D
from edge.training_layers import QuantConv2D as QuantConv2D
from edge.training_layers import QuantConv2DTranspose as QuantConv2DTranspose
from edge.training_layers import QuantDense as QuantDense
from edge.training_layers import QuantDepthwiseConv2D as QuantDepthwiseConv2D
from edge.training_layers import QuantSeparableConv2D as QuantSeparableConv2D
from edge.training_layers import RPReLU as RPReLU
from edge.training_layers import RSign as RSign
from edge.training_layers import WeightClip as WeightClip
from edge.training_quantizers import ApproxSign as ApproxSign
from edge.training_quantizers import DoReFa as DoReFa
from edge.training_quantizers import DorefaWeights as DorefaWeights
from edge.training_quantizers import MagnitudeAwareSign as MagnitudeAwareSign
from edge.training_quantizers import NoOp as NoOp
from edge.training_quantizers import SteHeaviside as SteHeaviside
from edge.training_quantizers import SteSign as SteSign
from edge.training_quantizers import SteTern as SteTern
from edge.training_quantizers import SwishSign as SwishSign
from edge.training_quantizers import XnorWeights as XnorWeights
from edge.training_quantizers import pass_where_small as pass_where_small
from edge.training_quantizers import ste_sign as ste_sign
