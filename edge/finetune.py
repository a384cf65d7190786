"""`edge finetune`: a float model distilled into its low-bit self, which `edge convert` keeps as it was trained.

    result = finetune("model.h5", "train.npz", Path("model-1bit.keras"), Settings(epochs=20))

The low-bit self starts from the weights of the float model and imitates what that answers; labels count where there are some. A folder
beside the output, "model-1bit.finetune", holds settings, checkpoint, curve and result.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import edge
from edge.batches import takes_pictures
from edge.chance import doubt
from edge.converters.layer_bits import nothing_matches
from edge.converters.outputs import check_replaceable
from edge.datasets import Part
from edge.errors import InputError, ModelError
from edge.files import write_atomically
from edge.finetune_data import TEST_ARRAYS, Parts, parted, read_pictures
from edge.finetune_network import estimate_norms, low_bit, prepared, start
from edge.preprocess import Preprocess, default_for
from edge.recipes import Augment, Recipe, Schedule, Schedules
from edge.train_folder import RESULT, SETTINGS, claim
from edge.train_loop import Batch, Epoch, State, Training, run
from edge.widths import TERNARY, WIDTHS, Bits
from edge.zoo_writer import Model, keras_package, save

if TYPE_CHECKING:
    from edge.training import Algorithm

ACTIVATION_BITS = (1, 8, 32)
_Path = str | os.PathLike[str]
FOLDER = ".finetune"
_TEACHER = 0.7  # share of the loss that compares with the float model, where there are labels
_FEW = (1, 2, TERNARY, 4)
_RATES = {1: 3e-3, 2: 1e-3, TERNARY: 1e-3, 4: 5e-4}
_RATE_OF_SIGNS = 1e-2
_CHUNK = 500
_SETTLING_PICTURES = 2_048  # that batch norms are measured on behind each epoch: averages of the training lag behind signs that flip
_CALIBRATION_PICTURES = 500
_UNMINDED, _TRIED, _SHIFT = 0.9, 500, 0.1  # share of answers that a change of pictures leaves as they are, pictures tried, part of the size


@dataclass(frozen=True)
class Settings:
    """What decides a fine-tuning; a run is resumed only with the same.

    bits: 1, 2, 4 or "ternary", of the weights of all layers but the first and the last. activation_bits: 1 (signs), 8 (by calibration,
    behind the training) or 32 of what goes between layers. layers: patterns of names and the bits of these layers, of which the last that
    matches counts; 8 and 32 leave a layer out. rate: the highest learning rate, by default one that suits the bits. shortcuts: around
    layers of signs. prelu: in front of them, for ReLU. mixed_precision: training computes in bfloat16.
    """

    bits: Bits = 1
    activation_bits: int = 32
    layers: tuple[tuple[str, Bits], ...] = ()
    epochs: int = 20
    seed: int = 0
    rate: float | None = None
    batch: int = 128
    shortcuts: bool = False
    prelu: bool = False
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        if self.bits not in _FEW:
            raise InputError(f"fine-tuning trains weights of {_words(_FEW)} bits, got {self.bits!r}; edge convert gives 8 without training")
        for _, bits in self.layers:
            if bits not in WIDTHS:
                raise InputError(f"bits of a layer should be one of {_words(WIDTHS)}, got {bits!r}")
        if self.activation_bits not in ACTIVATION_BITS or (self.activation_bits == 1 and self.bits != 1):
            allowed = ACTIVATION_BITS if self.bits == 1 else ACTIVATION_BITS[1:]
            raise InputError(f"activation bits should be {_words(allowed)} with bits {self.bits}, got {self.activation_bits!r}")
        if self.epochs < 1 or self.batch < 1:
            raise InputError(f"a fine-tuning has 1 epoch and 1 picture a batch or more, got {self.epochs} and {self.batch}")

    @property
    def schedule(self) -> Schedule:
        """With signs between layers these come first, for a third of the epochs, as weights of 1 bit alone are easier to learn."""
        signs = self.activation_bits == 1
        rate = self.rate or (_RATE_OF_SIGNS if signs else _RATES[self.bits])
        return Schedule(self.epochs, rate, warm_up=0.5, teacher=_TEACHER, signs_first=self.epochs // 3 if signs else 0)


def _words(values: tuple[Bits, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"


@dataclass(frozen=True)
class Told:
    """Who is told how it goes: say takes sentences; epoch each finished one; batch how far the epoch is."""

    say: Callable[[str], None] = lambda text: None
    epoch: Callable[[Epoch], None] = lambda row: None
    batch: Batch = lambda epoch, done, total: None


def finetune(
    source: _Path,
    data: _Path,
    output: Path,
    settings: Settings,
    *,
    test: _Path | None = None,
    preprocess: Preprocess | None = None,
    resume: bool = False,
    told: Told | None = None,
) -> dict[str, Any]:
    """Fine-tune the model in `source` on the pictures of `data`; writes `output` (`.keras`) and the `.edge` beside it.

    test: pictures with labels that decide nothing, read once at the end. preprocess: how pictures become what the network sees, by default
    0..255 for a model that rescales, else 0..1. resume: go on where a run with the same settings was cut off. Returns the content of
    `result.json`: the scores of the float model, of the low-bit one before training and after, and of the converted file, on pictures
    held back.

    Raises `EdgeError` for sources whose layers cannot be swapped, data that do not fit, and where the folder holds another run.
    """
    told = told or Told()
    folder = output.with_suffix(FOLDER)
    _check_output(source, output, folder)
    given = _read(source)
    preprocess = preprocess or given.preprocess
    algorithms, left_out = _algorithms(given.network, settings)
    pictures = _pictures(given.network, data, test, preprocess, settings, told)
    for sentence in _doubt(given.network, pictures):
        told.say(sentence)
    keras_package().utils.set_random_seed(settings.seed)
    network = low_bit(given.network, algorithms, shortcuts=settings.shortcuts, prelu=settings.prelu)
    _rehearse(network, settings, left_out, pictures.parts.learn.x, preprocess)
    seen = {"preprocess": preprocess.to_json(), "data_sha256": pictures.sha256}
    claim(folder, {**_plain(settings), "source_sha256": given.sha256, **seen}, resume=resume)
    start(network, given.network, pictures.parts.learn.x)
    initial = network.get_weights()
    state = run(_training(network, given.network, pictures, settings), folder, told=told.epoch, batch=told.batch)
    save(network, output)
    _convert(output, settings, left_out, pictures.parts.learn.x, preprocess)
    rows = {"converted": _scores(edge.load(output.with_suffix(".edge")), pictures), "trained": _scores(network, pictures)}
    network.set_weights(initial)
    rows |= {"untrained": _scores(network, pictures), "float": _scores(given.network, pictures)}
    result = {**_facts(output, pictures, state), **{part: {name: row[part] for name, row in rows.items()} for part in rows["float"]}}
    write_atomically(folder / RESULT, [json.dumps(result, indent=2).encode()])
    return result


def _check_output(source: _Path, output: Path, folder: Path) -> None:
    """Refuse, before the training, names that could not be written behind it."""
    if output.suffix != ".keras":
        raise InputError(f"the fine-tuned model is written as a .keras file, got {output}; give -o a name that ends so")
    mine = (folder / SETTINGS).exists() and output.absolute() != Path(source).absolute()
    if output.exists() and not mine:
        raise InputError(f"the file {output} is there, and is not of this fine-tuning; give another name with -o, or remove it")
    check_replaceable({"edge": output.with_suffix(".edge")})


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    return dict(json.loads(json.dumps(vars(settings))))


def _facts(output: Path, pictures: _Given, state: State) -> dict[str, Any]:
    return {
        "files": [output.name, output.with_suffix(".edge").name],
        "labels": pictures.labelled,
        "pictures": {name: len(part) for name, part in {**vars(pictures.parts), **pictures.scored}.items()},
        "epochs": len(state.curve),
        "best_epoch": state.best_epoch,
        "validation": state.best_validation,
        "training_s": round(sum(row.seconds for row in state.curve), 1),
        "training_cpu_s": round(sum(row.cpu_seconds for row in state.curve), 1),
    }


# -- what is given -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """The prepared float network, the digest of its file, and what it sees where nothing else is said."""

    network: Model
    sha256: str
    preprocess: Preprocess


def _read(source: _Path) -> _Source:
    from edge.converters.keras_file import read_keras
    from edge.converters.layers import rescales_itself

    keras = keras_package()
    read = read_keras(Path(source))  # its errors are sentences
    try:
        model = keras.models.load_model(source, compile=False)
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as err:
        raise ModelError(f"Keras cannot load {os.fspath(source)}: {' '.join(str(err).split())[:300]}; save it anew with Keras 3") from err
    return _Source(prepared(model), read.sha256[:16], default_for(rescales_itself(read)))


@dataclass(frozen=True)
class _Given:
    """The pictures in parts; labelled: the labels are the file's, not the float model's. test: of --test, looked at when all is done.

    sha256: of what decides the training, the pictures as the network sees them and labels of the file. seen: how they became that.
    """

    parts: Parts
    labelled: bool
    test: Part | None
    sha256: str
    seen: Preprocess | None

    @property
    def scored(self) -> dict[str, Part]:
        """The parts that nothing is learnt from, and nothing chosen by."""
        return {"held_back": self.parts.held_back} | ({} if self.test is None else {"test": self.test})


def _pictures(
    network: Model,
    data: str | os.PathLike[str],
    test: str | os.PathLike[str] | None,
    preprocess: Preprocess,
    settings: Settings,
    told: Told,
) -> _Given:
    pictures = read_pictures(data, network, preprocess)
    labelled = pictures.y is not None
    for remark in pictures.remarks:
        told.say(remark)
    told.say(f"{len(pictures.x):,} pictures, {'with labels' if labelled else 'without labels, which the float model gives them'}")
    parts = parted(pictures, _answers(network, pictures.x) if pictures.y is None else pictures.y, seed=settings.seed)
    if test is None:
        return _Given(parts, labelled, None, pictures.sha256, pictures.seen)
    tests = read_pictures(test, network, preprocess, TEST_ARRAYS)
    if tests.y is None:
        why = "; ".join(tests.remarks) or "the pictures of --test have no labels, expected a class for each"
        raise InputError(f"{why}; leave --test out, or give labels")
    return _Given(parts, labelled, Part(tests.x, tests.y), pictures.sha256, pictures.seen)


def _doubt(network: Model, pictures: _Given) -> tuple[str, ...]:
    """The sentence on a float network that may be given other pixels than it was trained on, said before it teaches anything."""
    if not pictures.labelled:
        return ()
    part = pictures.parts.held_back
    return doubt(_share(network, part), network.output_shape[-1], len(part), pictures.seen)


def _algorithms(float_net: Model, settings: Settings) -> tuple[dict[str, Algorithm], dict[str, Bits]]:
    """The algorithm of each layer that gets few bits, and the bits that a conversion gives those left out by name."""
    from edge.training_binarize import ends_of, weighted_calls

    names = [call.name for call in weighted_calls(float_net)]
    chosen: dict[str, Bits] = {name: 8 if name in ends_of(float_net) else settings.bits for name in names}
    for pattern, bits in settings.layers:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise InputError(nothing_matches(pattern, names))
        chosen |= dict.fromkeys(matching, bits)
    low = {name: _algorithm(bits, settings.activation_bits) for name, bits in chosen.items() if bits in _FEW}
    if not low:
        raise InputError(
            f"no layer is left to fine-tune: expected one with weights beside the first and the last, got {', '.join(names) or 'none'}; "
            "give --layer NAME=1"
        )
    return low, {name: bits for name, bits in chosen.items() if name not in low}


def _algorithm(bits: Bits, activation_bits: int) -> Algorithm:
    from edge.training import Algorithm, DoReFa, SteTern, XnorWeights

    if bits == 1:
        return Algorithm(XnorWeights(), "approx_sign" if activation_bits == 1 else None)
    return Algorithm(SteTern(ternary_weight_networks=True, clip_value=None) if bits == TERNARY else DoReFa(int(bits), "weights"))


# -- the training --------------------------------------------------------------------------------------------------------------


def _training(network: Model, float_net: Model, pictures: _Given, settings: Settings) -> Training:
    schedule = settings.schedule if pictures.labelled else replace(settings.schedule, teacher=1.0)
    parts, changes = pictures.parts, _augment(float_net, pictures.parts.learn.x)
    recipe = Recipe("finetune", network.name, "given", Schedules(schedule, schedule, schedule), batch=settings.batch, augment=changes)
    settle = partial(estimate_norms, pictures=parts.learn.x[:_SETTLING_PICTURES])
    return Training(network, recipe, schedule, parts.learn, parts.choose, settings.seed, float_net, settle, settings.mixed_precision)


def _augment(float_net: Model, pictures: NDArray[Any]) -> Augment:
    """Flips and shifts, where the float model answers as it does without them."""
    if not takes_pictures(pictures.shape[1:]):
        return Augment()
    tried = pictures[:_TRIED]
    answers = _answers(float_net, tried)
    rows, columns = (max(round(_SHIFT * size), 1) for size in tried.shape[1:3])
    moved = np.zeros_like(tried)
    moved[:, rows:, columns:] = tried[:, :-rows, :-columns]
    flips, shifts = (bool(np.mean(_answers(float_net, changed) == answers) >= _UNMINDED) for changed in (tried[:, :, ::-1], moved))
    return Augment(shift=_SHIFT if shifts else 0.0, flip=flips)


# -- what comes out ------------------------------------------------------------------------------------------------------------


def _answers(network: Model, pictures: NDArray[Any]) -> NDArray[np.int64]:
    """The class of each picture."""
    found: NDArray[np.int64] = network.predict(pictures, batch_size=_CHUNK, verbose=0).argmax(-1)
    return found


def _scores(network: Any, pictures: _Given) -> dict[str, float]:
    """The share of right answers in each part, of a Keras model or an engine."""
    return {name: _share(network, part) for name, part in pictures.scored.items()}


def _share(network: Any, part: Part) -> float:
    answers = _answers if hasattr(network, "predict") else _answers_of_engine
    return float(np.mean(answers(network, part.x) == part.y))


def _answers_of_engine(engine: Any, pictures: NDArray[Any]) -> NDArray[np.int64]:
    chunks = (pictures[first : first + _CHUNK] for first in range(0, len(pictures), _CHUNK))
    return np.concatenate([engine.run(chunk).argmax(-1) for chunk in chunks])


def _rehearse(network: Model, settings: Settings, left_out: dict[str, Bits], pictures: NDArray[Any], preprocess: Preprocess) -> None:
    """Convert what is not trained yet: a network that edge cannot convert is refused now, not when hours have gone into it."""
    with TemporaryDirectory() as folder:
        save(network, Path(folder) / "untrained.keras")
        _convert(Path(folder) / "untrained.keras", settings, left_out, pictures[:1], preprocess)


def _convert(output: Path, settings: Settings, left_out: dict[str, Bits], pictures: NDArray[Any], preprocess: Preprocess) -> None:
    """The `.edge` beside `output`: layers left out at 8 bits, or as many as they were given."""
    chosen = np.linspace(0, len(pictures) - 1, min(_CALIBRATION_PICTURES, len(pictures))).astype(int)
    integer = settings.activation_bits == 8
    edge.convert(
        output, output.with_suffix(".edge"), bits=8, activation_bits=8 if integer else 32, formats="edge", preprocess=preprocess,
        layers={name: bits for name, bits in left_out.items() if bits != 8}, calibrate=pictures[chosen] if integer else None,
    )  # fmt: skip
