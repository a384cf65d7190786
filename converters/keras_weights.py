"""The weights of a model file by layer and name, from the two layouts Keras has used.

`.h5`: a group per top-level layer, with the list of its weights' names; a nested model's weights lie together in its group.
`.keras`: a group per object, `layers/<class in snake_case>[_n]/vars/<k>`: no names at all, so the k-th variable of a class must be known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.converters.keras_graph import LayerPath, Weights
from edge.converters.keras_h5 import Hdf5Reader
from edge.converters.keras_tree import INPUT_LAYER, Layer, Model
from edge.errors import ModelError

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

_DENSE = (("kernel", ""), ("bias", "use_bias"))
_DEPTHWISE = (("depthwise_kernel", ""), ("bias", "use_bias"))
_SEPARABLE = (("depthwise_kernel", ""), ("pointwise_kernel", ""), ("bias", "use_bias"))
_NORM = (("gamma", "scale"), ("beta", "center"))
_STATISTICS = (*_NORM, ("moving_mean", ""), ("moving_variance", ""))
# The variables of a layer in the order Keras creates them, each with the option that leaves it out when false.
_VARIABLES: dict[str, tuple[tuple[str, str], ...]] = {
    **{f"Conv{n}D": _DENSE for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _DENSE for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": _DEPTHWISE for n in (1, 2)},
    **{f"SeparableConv{n}D": _SEPARABLE for n in (1, 2)},
    "Dense": _DENSE,
    "BatchNormalization": _STATISTICS,
    "LayerNormalization": _NORM,
    "GroupNormalization": _NORM,
    "LayerScale": (("gamma", ""),),
    "PReLU": (("alpha", ""),),
    "Embedding": (("embeddings", ""),),
    "Normalization": (("mean", ""), ("variance", "")),
    "RSign": (("shift", ""),),
    "RPReLU": (("before", ""), ("slope", ""), ("after", "")),
    "Conv2DBatchnorm": (*_DENSE, *_STATISTICS),
    "DepthwiseConv2DBatchnorm": (*_DEPTHWISE, *_STATISTICS),
}
# Of QKeras: layers with another in them, whose variables are stored beside their own, of which the last is a count of steps.
_INNER = {"QConv2DBatchnorm": "batchnorm", "QDepthwiseConv2DBatchnorm": "batchnorm"}
# Stored after those above, and of no use here.
_FURTHER = {"Normalization": ("count",)}
_OF_PRUNING = ("mask", "threshold", "pruning_step")
_OF_CLUSTERING = ("cluster_centroids", "pulling_indices")
_NOT_TRAINED = frozenset({"moving_mean", "moving_variance"})


def expected_names(layer: Layer) -> tuple[str, ...] | None:
    """Names of the layer's weights in Keras' order; None for a class whose weights are not known here. Larq's and QKeras' are like them."""
    variables = _VARIABLES.get(layer.class_name) or _VARIABLES.get(re.sub("^(Quant|Q)", "", layer.class_name))
    if variables is None:
        return None
    if layer.class_name == "Normalization" and layer.config.get("mean") is not None:
        return ()
    return tuple(name for name, option in variables if not option or layer.config.get(option) is not False)


def leaves(model: Model, path: LayerPath = ()) -> Iterator[tuple[LayerPath, Layer]]:
    """Every layer that is not a model, with its path."""
    for layer in model.layers:
        if layer.model is not None:
            yield from leaves(layer.model, (*path, layer.name))
        elif layer.class_name != INPUT_LAYER:
            yield (*path, layer.name), layer


def _finished(layer: Layer, path: LayerPath, arrays: dict[str, np.ndarray[Any, Any]]) -> Arrays:
    """Check and complete one layer's weights: names, presence, type, no NaN; integers no class expects (seeds, counts) are dropped."""
    where = f"layer {'/'.join(path)!r}"
    expected = expected_names(layer) or ()
    if expected:
        arrays = _without_wrapper(arrays, expected)
    arrays = {_known_name(name, expected, arrays): array for name, array in arrays.items()}
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise ModelError(
            f"{where} ({layer.class_name}) lacks its {' and '.join(missing)}: the file has {_listed(arrays) or 'no weights'}; "
            "save the whole model again, after it was built or trained"
        )
    for name in expected:
        if arrays[name].dtype.kind != "f":
            raise ModelError(
                f"{where}: weight {name!r} is stored as {arrays[name].dtype}, expected a floating type: "
                "save the model before Keras quantizes it"
            )
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    for name, array in floats.items():
        _check_finite(where, name, array)
        array.flags.writeable = False
    return floats


def _without_wrapper(arrays: Mapping[str, np.ndarray[Any, Any]], expected: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Without what wrappers of tensorflow_model_optimization keep beside a layer's weights; clustered weights take their centroids."""
    kept = {name: array for name, array in arrays.items() if name not in _OF_PRUNING or name in expected}
    for name in expected:
        found = [next((key for key in kept if re.fullmatch(f"{what}_{name}(_0)?", key)), None) for what in _OF_CLUSTERING]
        centroids, indices = (None if key is None else kept.pop(key) for key in found)
        if centroids is not None and indices is not None and indices.dtype.kind in "iu" and indices.size and centroids.ndim == 1:
            kept[name] = centroids[np.clip(indices, 0, len(centroids) - 1)]
    return kept


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(ascii, names))


def _known_name(name: str, expected: tuple[str, ...], arrays: Mapping[str, Any]) -> str:
    """Keras 3 calls a depthwise kernel "kernel"; a layer built twice in a Keras 2 graph has "kernel_1"."""
    if name in expected:
        return name
    if name == "kernel" and "depthwise_kernel" in expected and "depthwise_kernel" not in arrays:
        return "depthwise_kernel"
    if len(expected) == 1 and re.fullmatch(r"variable(_\d+)?", name):  # a weight that its layer did not name
        return expected[0]
    plain = re.sub(r"_\d+$", "", name)
    return plain if plain in expected and plain not in arrays else name


def _check_finite(where: str, name: str, array: np.ndarray[Any, Any]) -> None:
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ModelError(
            f"{where}: {bad} of the {array.size} values of weight {name!r} are NaN or too large for float32, "
            "expected finite numbers: the training diverged, train again or use an earlier checkpoint"
        )


def read_named_weights(file: Hdf5Reader, model: Model, *, group: str = "model_weights") -> Weights:
    """Weights of an `.h5` file, in `model_weights`, or of a file of weights alone, in "", its root."""
    found: dict[LayerPath, Arrays] = {}
    for layer in model.layers:
        names = file.names(f"{group}/{layer.name}", "weight_names")
        arrays = {name: file.array(f"{group}/{layer.name}/{name}") for name in dict.fromkeys(names)}
        if layer.model is not None:
            found.update(_of_nested_model(layer.model, (layer.name,), names, arrays))
        elif layer.class_name != INPUT_LAYER:
            found[layer.name,] = _finished(layer, (layer.name,), _by_short_name(arrays))
    return found


def _short(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


def _by_short_name(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """By the last part of the name, or by the whole where two weights of a layer (of two cells, say) would share that."""
    counts = Counter(map(_short, arrays))
    return {_short(name) if counts[_short(name)] == 1 else name: array for name, array in arrays.items()}


def _of_nested_model(
    model: Model, path: LayerPath, names: tuple[str, ...], arrays: Mapping[str, np.ndarray[Any, Any]]
) -> dict[LayerPath, Arrays]:
    """Hand the weights of a nested model to its layers: by the layer in their names, else by Keras' order."""
    inner = dict(leaves(model, path))
    owners = _owners_by_name(inner, names) or _owners_by_order(model, path, names)
    if owners is None:
        raise ModelError(
            f"which layer of nested model {'/'.join(path)!r} its weights belong to cannot be told from their names "
            f"({_listed(names[:4])}, ...): save the model as .keras"
        )
    shares: dict[LayerPath, dict[str, np.ndarray[Any, Any]]] = {leaf: {} for leaf in inner}
    for name, owner in zip(names, owners, strict=True):
        shares[owner][name] = arrays[name]
    return {leaf: _finished(inner[leaf], leaf, _by_short_name(share)) for leaf, share in shares.items()}


def read_listed_weights(arrays: Mapping[str, np.ndarray[Any, Any]], model: Model) -> Weights:
    """Weights of a whole model by name, in the order of its layers: by the layer in their names, else by that order."""
    inner = dict(leaves(model))
    names = tuple(arrays)
    owners = _owners_by_name(inner, names) or _owners_layer_by_layer(inner, names)
    if owners is None:
        raise ModelError("which layers the weights belong to cannot be told from their names: save the model as .keras")
    shares: dict[LayerPath, dict[str, np.ndarray[Any, Any]]] = {leaf: {} for leaf in inner}
    for name, owner in zip(names, owners, strict=True):
        shares[owner][name] = arrays[name]
    return {leaf: _finished(inner[leaf], leaf, _by_short_name(share)) for leaf, share in shares.items()}


def _owners_layer_by_layer(inner: Mapping[LayerPath, Layer], names: tuple[str, ...]) -> list[LayerPath] | None:
    order = [(leaf, name) for leaf, layer in inner.items() for name in expected_names(layer) or ()]
    agree = len(order) == len(names) and all(
        _known_name(_short(name), (wanted,), {}) == wanted for name, (_, wanted) in zip(names, order, strict=True)
    )
    return [leaf for leaf, _ in order] if agree else None


def _owners_by_name(inner: Mapping[LayerPath, Layer], names: tuple[str, ...]) -> list[LayerPath] | None:
    """The layer each weight names, None unless every name fits exactly one layer and every layer gets what it expects."""
    by_layer_name: dict[str, list[LayerPath]] = {}
    for leaf in inner:
        by_layer_name.setdefault(leaf[-1], []).append(leaf)
    owners = [_named_owner(name, by_layer_name) for name in names]
    if None in owners or len(set(names)) < len(names):
        return None
    found = [owner for owner in owners if owner is not None]
    counts = Counter(found)
    complete = all(counts[leaf] >= len(expected_names(layer) or ()) for leaf, layer in inner.items())
    return found if complete else None


def _named_owner(name: str, by_layer_name: Mapping[str, list[LayerPath]]) -> LayerPath | None:
    """The layer whose name, and then as many names of models around it as needed, end the scope of `name`."""
    scope = name.rpartition("/")[0]
    parts = scope.split("/")
    for start in range(len(parts)):
        candidates = by_layer_name.get("/".join(parts[start:]), [])
        if len(candidates) > 1:
            candidates = [leaf for leaf in candidates if f"/{scope}".endswith("/" + "/".join(leaf[-2:]))]
        if candidates:
            return candidates[0] if len(candidates) == 1 else None
    return None


def _owners_by_order(model: Model, path: LayerPath, names: tuple[str, ...]) -> list[LayerPath] | None:
    """Keras' order, first what is trained, then what is not; None unless all short names agree with it."""
    trained: list[tuple[LayerPath, str]] = []
    fixed: list[tuple[LayerPath, str]] = []
    for leaf, layer, trainable in _with_trainable(model, path, model.trainable):
        expected = expected_names(layer)
        for name in expected or ():
            (trained if trainable and name not in _NOT_TRAINED else fixed).append((leaf, name))
    order = trained + fixed
    if len(order) != len(names) or len(set(names)) < len(names):
        return None
    agree = all(_known_name(_short(name), (wanted,), {}) == wanted for name, (_, wanted) in zip(names, order, strict=True))
    return [leaf for leaf, _ in order] if agree else None


def _with_trainable(model: Model, path: LayerPath, trainable: bool) -> Iterator[tuple[LayerPath, Layer, bool]]:
    for layer in model.layers:
        if layer.model is not None:
            yield from _with_trainable(layer.model, (*path, layer.name), trainable and layer.model.trainable)
        else:
            yield (*path, layer.name), layer, trainable and layer.config.get("trainable") is not False


def read_numbered_weights(file: Hdf5Reader, model: Model, *, major: int) -> Weights:
    """Weights of `model.weights.h5` in a `.keras` file, written by Keras `major`."""
    return _Numbered(file, major).read(model)


@dataclass
class _Numbered:
    """A walk through the layers in Keras' order, counting classes; `visited`: the first path of an object that several models hold."""

    file: Hdf5Reader
    major: int
    container: str = "layers"
    found: dict[LayerPath, Arrays] = field(default_factory=dict)
    visited: dict[int, LayerPath] = field(default_factory=dict)

    def read(self, model: Model) -> Weights:
        # Keras 2.12 and 2.13 kept the layers under another name, those with weights twice.
        if not self.file.has(self.container):
            self.container = "_layer_checkpoint_dependencies"
        self._read_model(model, (), "")
        return self.found

    def _read_model(self, model: Model, path: LayerPath, group: str | None) -> None:
        """`group` is where the model's own weights are, None where they were stored with another model."""
        used: Counter[str] = Counter()
        for layer in model.layers:
            if layer.is_operation or (layer.class_name == INPUT_LAYER and model.class_name == "Sequential"):
                continue
            if group is None or self._listed_before(layer):
                self._read_layer(layer, (*path, layer.name), None)
                continue
            snake = snake_case(layer.model.class_name if layer.model else layer.class_name, self.major)
            number = used[snake]
            used[snake] += 2 if self._listed_twice(layer) else 1
            place = f"{group}{self.container}/{snake}" + (f"_{number}" if number else "")
            self._read_layer(layer, (*path, layer.name), place)

    def _listed_before(self, layer: Layer) -> bool:
        """Keras 2.14 and 2.15 list an object once, however many models hold it; other versions list it without its weights."""
        return self.major < 3 and self.container == "layers" and layer.shared in self.visited

    def _listed_twice(self, layer: Layer) -> bool:
        if self.container == "layers":
            return False
        inner = [leaf for _, leaf in leaves(layer.model)] if layer.model else [layer]
        return any(expected_names(leaf) for leaf in inner)

    def _read_layer(self, layer: Layer, path: LayerPath, place: str | None) -> None:
        first = self.visited.setdefault(layer.shared, path) if layer.shared is not None else path
        if layer.model is not None:
            self._read_model(layer.model, path, None if place is None else f"{place}/")
        elif layer.class_name != INPUT_LAYER:
            stored = place is not None and self.file.count(f"{place}/vars") > 0
            arrays = self._variables(layer, path, place) if place is not None and stored else dict(self.found.get(first, {}))
            self.found[path] = _finished(layer, path, arrays)

    def _variables(self, layer: Layer, path: LayerPath, place: str) -> dict[str, np.ndarray[Any, Any]]:
        self._check_name(layer, path, place)
        if layer.class_name in _INNER:
            return self._with_inner(layer, place)
        count = self.file.count(f"{place}/vars")
        names = expected_names(layer)
        if names is not None:
            names += _FURTHER.get(layer.class_name, ())
        if names is not None and count > len(names):
            raise ModelError(
                f"layer {'/'.join(path)!r} ({layer.class_name}) has {count} weights in the file, expected {len(names)} "
                f"({', '.join(names)}): save the model before Keras quantizes it or adds LoRA weights"
            )
        arrays = (self.file.array(f"{place}/vars/{k}") for k in range(count))
        return dict(zip(names or map(str, range(count)), arrays, strict=False))

    def _with_inner(self, layer: Layer, place: str) -> dict[str, np.ndarray[Any, Any]]:
        names = expected_names(layer) or ()
        own = [name for name in names if name in ("kernel", "depthwise_kernel", "bias")]
        places = {place: own, f"{place}/{_INNER[layer.class_name]}": names[len(own) :]}
        return {
            name: self.file.array(f"{where}/vars/{k}")
            for where, group in places.items()
            for k, name in enumerate(group)
            if k < self.file.count(f"{where}/vars")
        }

    def _check_name(self, layer: Layer, path: LayerPath, place: str) -> None:
        """Later versions of Keras 3 note the layer's name: a check that the counting above found the right group."""
        name = self.file.text(f"{place}/vars", "name")
        if name is not None and name != layer.name:
            raise ModelError(f"the weights of layer {'/'.join(path)!r} are stored as those of {name!r}: save the model again")


def snake_case(class_name: str, major: int) -> str:
    """Keras' file name for a class; Keras 2 lets digits follow the letters of a word."""
    word = r"(.)([A-Z][a-z]+)" if major >= 3 else r"(.)([A-Z][a-z0-9]+)"
    name = re.sub(r"\W+", "", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(word, r"\1_\2", name)).lower()
