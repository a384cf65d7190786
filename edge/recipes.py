"""How each network is trained: one `Recipe` a row of the results table.

    from edge.recipes import RECIPES

    RECIPES["lenet"].schedule("xnor").epochs

A recipe has three schedules: for float nets, for weights of 1 bit, and for weights and activations of 1 bit. Where the descriptions of the
networks leave the training open, and where 1 bit needs more than they say, recipes take what is standard in the field:

- Adam (for residual nets of floats SGD with Nesterov momentum), a linear warm-up and half a cosine down to 0
- latent weights clipped to -1..1 (https://arxiv.org/abs/1602.02830), straight-through gradients, a batch norm before each sign
- 1 bit learns from the trained float net of the same recipe besides the labels (https://arxiv.org/abs/1503.02531)
- convolutional nets of 1 bit, mostly, begin with the kernels of that float net (https://arxiv.org/abs/1808.00278)
- deep nets of signs in two stages: signs between layers first, then signs as weights too (https://arxiv.org/abs/1904.05868)
- pictures shifted, turned and scaled a little by Keras' layers, unless their pixels are permuted; clocks turned to any angle, by and by

The last pictures of the training set are held back to choose the epoch that is kept; the test set is looked at once, by the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edge.errors import InputError, unknown_name
from edge.recipes_gan import GANS
from edge.zoo_writer import QUANTIZED

PRECISIONS = ("float", *QUANTIZED)
_LENGTHS = ("epochs", "signs_first")
CLOCKS_HELD_BACK = 720  # which `edge.clocks` renders turned, as those for tests


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    rate: the highest learning rate. warm_up: epochs until it is reached. decay: weight decay of SGD.
    teacher: share of the loss that compares with the float net's answers, the rest with the labels.
    signs_first: of the epochs, how many train with signs between layers and float weights.
    from_teacher: with a teacher, whether kernels begin as the float net's, not at random (Liu et al., 2018, arXiv:1808.00278).
    """

    epochs: int
    rate: float
    optimizer: str = "adam"
    warm_up: float = 1.0
    decay: float = 0.0
    teacher: float = 0.0
    signs_first: int = 0
    from_teacher: bool = False


@dataclass(frozen=True)
class Schedules:
    """Of float nets, of nets with weights of 1 bit, and of nets all of 1 bit."""

    floats: Schedule
    weights: Schedule
    signs: Schedule


@dataclass(frozen=True)
class Augment:
    """How far pictures are changed at random: shares of the size (shift, zoom) and of a turn; flips left to right; noise in grey levels."""

    shift: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    noise: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How one network is trained on one data set.

    network: a name of `edge.zoo`. data: a name of `edge.datasets`. permuted: the pixels of all pictures in one fixed other order.
    held_back: pictures of the training set that choose the epoch. loss_weights: of the outputs.
    turning: of the epochs, the share over which pictures are turned further and further, up to any angle; 0 for none
    (what is easy first: Bengio et al., 2009, "Curriculum learning").
    asked: what the converted file should reach on the test set, in percent (clock: minutes): float, weights of 1 bit, all of 1 bit.
    seed_figures: what the description of the network reports, by precision; empty where it reports nothing.
    later: no row of the results table yet.
    """

    name: str
    network: str
    data: str
    schedules: Schedules
    permuted: bool = False
    batch: int = 128
    augment: Augment = Augment()
    held_back: int = 5_000
    loss_weights: tuple[float, ...] = (1.0,)
    turning: float = 0.0
    asked: tuple[float, float, float] | None = None
    seed_figures: Mapping[str, float] = field(default_factory=dict)
    later: bool = False

    def schedule(self, precision: str) -> Schedule:
        """That of a precision of `edge.zoo`."""
        if precision not in PRECISIONS:
            raise InputError(f"nets are trained at one of the precisions {', '.join(PRECISIONS)}, got {precision!r}")
        if precision == "float":
            return self.schedules.floats
        return self.schedules.signs if "input_quantizer" in QUANTIZED[precision] else self.schedules.weights

    def how(self, precision: str) -> dict[str, Any]:
        """What decides a training but for its length, as JSON; a result that tells of another was trained by a former recipe."""
        schedule = {name: value for name, value in asdict(self.schedule(precision)).items() if name not in _LENGTHS}
        only_where_set = {"from_teacher": schedule.pop("from_teacher"), "turning": self.turning}
        return {"batch": self.batch, **schedule, "changes": asdict(self.augment), **{k: v for k, v in only_where_set.items() if v}}


def recipe(name: str) -> Recipe:
    """The recipe of this name; raises `InputError` for another."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, (*RECIPES, *GANS))
    return RECIPES[name]


# -- digits and clothes --------------------------------------------------------------------------------------------------------

_DIGITS = Augment(shift=0.07, turn=0.025, zoom=0.1)
_CLOTHES = Augment(shift=0.04, flip=True)
_TAUGHT = 0.6  # share of the teacher in the loss of nets with 1 bit


def _schedules(
    floats: int, weights: int, signs: int, *, rate: float = 1e-3, raised: tuple[float, float] = (2, 3), from_teacher: bool = False
) -> Schedules:  # fmt: skip
    """So many epochs of each; weights of 1 bit, and signs, take `raised` times the rate: a step is felt only where it changes a sign."""
    taught = Schedule(weights, raised[0] * rate, teacher=_TAUGHT, from_teacher=from_teacher)
    return Schedules(Schedule(floats, rate), taught, replace(taught, epochs=signs, rate=raised[1] * rate))


def _digits_and_clothes() -> Iterator[Recipe]:
    large = (99.3, 99.2, 99.0)
    yield Recipe("lenet", "lenet", "mnist", _schedules(7, 5, 7, from_teacher=True), augment=_DIGITS, asked=large)
    yield Recipe("digits8", "digits8", "mnist", _schedules(7, 7, 9), augment=_DIGITS, asked=large, seed_figures={"float": 98.8})
    base = Recipe(
        "cnn-base", "cnn-base", "mnist", _schedules(14, 6, 8, raised=(2, 10), from_teacher=True), augment=_DIGITS, asked=large,
        seed_figures={"float": 99.0},
    )  # fmt: skip
    yield base
    yield Recipe("cnn-mnist", "cnn-mnist", "mnist", _schedules(16, 16, 24), augment=_DIGITS, asked=(99.2, 99.0, 98.5))
    dense = (98.2, 98.2, 97.5)
    mlp = Recipe("mlp-base", "mlp-base", "mnist", _schedules(20, 25, 35), augment=_DIGITS, asked=dense, seed_figures={"float": 98.0})
    yield mlp
    digits = replace(mlp, name="mlp-digits", network="mlp-digits", seed_figures={"float": 98.1})
    yield digits
    yield _permuted(mlp, {})
    yield _permuted(digits, {"float": 98.2})
    begun = _schedules(20, 8, 12, raised=(5, 10), from_teacher=True)
    clothes = Recipe(
        "cnn-base-fashion", "cnn-base", "fashion_mnist", begun, augment=_CLOTHES, asked=(92.1, 91.8, 90.5), seed_figures={"float": 91.8}
    )
    yield clothes
    worn = replace(mlp, name="mlp-base-fashion", data="fashion_mnist", augment=Augment(), asked=(88.9, 88.5, 87.0))
    yield replace(worn, seed_figures={"float": 86.9})
    yield _permuted(worn, {})
    fashion = replace(worn, name="mlp-fashion", network="mlp-fashion", seed_figures={"float": 87.7})
    yield fashion
    yield _permuted(fashion, {"float": 88.9})
    few = _schedules(6, 4, 6, raised=(2, 10), from_teacher=True)  # an epoch takes three times that of `cnn-base`
    cnn = replace(base, name="cnn-digits", network="cnn-digits", schedules=few)
    yield cnn
    yield replace(_permuted(cnn, {"float": 97.4}), asked=None)
    few = _schedules(12, 6, 10, raised=(5, 10), from_teacher=True)
    fashion = replace(clothes, name="cnn-fashion", network="cnn-fashion", schedules=few, seed_figures={"float": 92.1})
    yield fashion
    yield replace(_permuted(fashion, {"float": 89.0}), asked=None)


def _permuted(plain: Recipe, figures: Mapping[str, float]) -> Recipe:
    """The same on permuted pictures, which no shift or turn applies to."""
    return replace(plain, name=f"{plain.name}-permuted", permuted=True, augment=Augment(), seed_figures=figures)


# -- colour pictures and clocks ------------------------------------------------------------------------------------------------

_COLOURS = Augment(shift=0.1, flip=True)


def _colours() -> Iterator[Recipe]:
    epochs = {2: (30, 20, 50), 5: (26, 12, 28)}
    seeds = {2: (80.0, 77.0, 78.0), 5: (82.0, 81.0, 80.0)}
    asked = {2: (87.0, 85.0, 80.0), 5: (90.0, 89.0, 84.0)}
    for n in (2, 5):
        figures = dict(zip(("float", "xnor-weights", "dorefa-weights"), seeds[n], strict=True))
        floats, weights, signs = epochs[n]
        taught = Schedule(weights, 2e-3, teacher=_TAUGHT, from_teacher=True)
        # The kernels of the float net save epochs, not more: resnet(2) of signs is as good after 50 from random ones.
        quick = replace(taught, epochs=signs, rate=1e-2, signs_first=2 * signs // 5, from_teacher=n > 2)
        schedules = Schedules(Schedule(floats, 0.1, "sgd", decay=5e-4), taught, quick)
        own = Recipe(f"resnet-{n}", f"resnet({n})", "cifar10", schedules, augment=_COLOURS, asked=asked[n], seed_figures=figures)
        yield own
        yield replace(own, name=f"resnet-{n}-shortcuts", network=f"resnet({n})-shortcuts", seed_figures={})
    begun = _schedules(40, 20, 30, raised=(2, 10), from_teacher=True)
    yield Recipe("cnn-cifar10", "cnn-cifar10", "cifar10", begun, augment=_COLOURS, asked=(80.0, 79.0, 76.0))


def _clock() -> Recipe:
    weights = Schedule(24, 2e-3, teacher=_TAUGHT, from_teacher=True)
    signs = replace(weights, epochs=36, rate=1e-2, signs_first=14)
    return Recipe(
        "clock", "clock", "clocks", Schedules(Schedule(24, 1e-3), weights, signs), batch=24, held_back=CLOCKS_HELD_BACK,
        loss_weights=(6.0, 4.0), turning=0.2, asked=(1.89, 2.0, 2.5), seed_figures={"float": 1.89},
    )  # fmt: skip


def _later() -> Iterator[Recipe]:
    """Networks that take more than a machine of this project has: trained when they are asked for."""
    taught = Schedule(40, 2e-3, teacher=_TAUGHT)
    short = Schedules(Schedule(40, 0.1, "sgd", decay=5e-4), taught, replace(taught, epochs=80, signs_first=30))
    deep = {"float": 84.0, "xnor-weights": 82.0, "dorefa-weights": 80.0}
    yield Recipe("resnet-18", "resnet(18)", "cifar10", short, augment=_COLOURS, seed_figures=deep, later=True)
    yield Recipe("resnet-cifar100", "resnet-cifar100", "cifar100", _schedules(200, 200, 200), augment=_COLOURS, later=True)
    # From scratch: the description starts from weights trained on ImageNet.
    yield Recipe("alexnet", "alexnet", "flowers102", _schedules(60, 60, 90, rate=3e-4), batch=32, augment=_COLOURS, later=True)


RECIPES: Mapping[str, Recipe] = {each.name: each for each in (*_digits_and_clothes(), _clock(), *_colours(), *_later())}
TABLE = tuple(name for name, each in RECIPES.items() if not each.later)
"""The recipes of the results table."""
