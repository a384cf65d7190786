"""Which change to a model would help most on a device: alternatives are costed again by the same model that predicts, and compared.

Alternatives: more threads; a layer at fewer bits; half the units of a dense layer; activations of 8 bits, for the arena. A time that is
saved is the layer's time (measured or predicted) times what the prediction says is saved of it, so that what prediction gets wrong in both
alike cancels out. What a change does to the layers around it (a conversion more or less) is not counted, nor what it does to the answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge import arena
from edge.errors import FormatError, ModelError
from edge.graph import Graph, Node
from edge.kernels.isa import Machine, detect
from edge.lower import to_program
from edge.ops import OPS, ConstantType, OpError
from edge.program import Instruction, Program
from edge.targets.costs import InstructionCost, program_cost
from edge.targets.devices import Device
from edge.targets.profile import PREDICTED, LayerProfile, Profile
from edge.targets.roofline import estimate
from edge.tensors import FLOATS, NARROW, NO_HALO, Encoding, TensorType

F32, I8, U8, BITS = Encoding.FLOAT32, Encoding.INT8, Encoding.UINT8, Encoding.BITS
_LAYERS = 6  # the longest, or largest, that are costed again
_LEAST = 0.02  # of the time, or of the bytes: less is no help
_DTYPES: dict[Encoding, type[np.generic]] = {F32: np.float32, I8: np.int8, BITS: np.bool_, Encoding.INT32: np.int32}
_DTYPES |= {Encoding.FLOAT16: np.float16, **dict.fromkeys(NARROW, np.int8)}
_HOW = {
    8: "edge convert --bits 8 --calibrate PICTURES",
    1: "train the layer with signs (edge.training), then edge convert --bits 1",
}


@dataclass(frozen=True)
class Advice:
    """A change, how to make it, and what it saves of an inference's seconds, of the file and of RAM (bytes); None: not known.

    `basis` and `expected_error` (relative) are of the seconds.
    """

    change: str
    how: str
    seconds: float | None
    storage_bytes: int
    ram_bytes: int
    basis: str
    expected_error: float | None


def advise(program: Program, found: Profile, device: Device | None) -> tuple[Advice, ...]:
    """Changes that help, the one that helps most first: where the model does not fit, by the bytes that are short, else by time.

    device: what times are predicted by (of this machine its calibrated profile); None where there is none, or it has no kernels.
    """
    changes = [*_threads(found), *_layers(program, found, device), *_arena(program, found)]
    return tuple(sorted((each for each in changes if _helps(each, found)), key=lambda each: _worth(each, found), reverse=True))


def _worth(advice: Advice, found: Profile) -> float:
    if found.fits_memory is False:
        return advice.ram_bytes
    if found.fits_storage is False:
        return advice.storage_bytes
    return advice.storage_bytes + advice.ram_bytes if found.seconds is None else advice.seconds or 0.0


def _helps(advice: Advice, found: Profile) -> bool:
    fits = found.fits_memory is not False and found.fits_storage is not False
    if fits and advice.seconds is not None and advice.seconds <= 0:
        return False
    of_time = (advice.seconds or 0.0) / found.seconds if found.seconds else 0.0
    of_bytes = max(advice.storage_bytes / found.storage_bytes, advice.ram_bytes / max(1, found.footprint.total_bytes))
    return max(of_time, of_bytes) >= _LEAST


# -- threads -------------------------------------------------------------------------------------------------------------------


def _threads(found: Profile) -> Iterator[Advice]:
    times = found.seconds_by_threads
    if len(times) < 2 or 1 not in times:
        return
    best = min(times, key=lambda threads: times[threads])
    if best > 1:
        how = f"edge.load(model, threads={best})"
        yield Advice(f"{best} threads in place of one", how, times[1] - times[best], 0, 0, found.time_basis, found.expected_error)


# -- layers --------------------------------------------------------------------------------------------------------------------


def _layers(program: Program, found: Profile, device: Device | None) -> Iterator[Advice]:
    layers = [(i, layer) for i, layer in enumerate(found.layers) if layer.macs]
    if not layers:
        return
    ends = layers[0][0], layers[-1][0]
    for number, layer in sorted(layers, key=lambda each: -(each[1].seconds or each[1].storage_bytes))[:_LAYERS]:
        for bits in _narrower(layer.precision, is_end=number in ends):
            yield from _again(program, found, device, number, bits)
        if layer.operation == "dense" and number != ends[1]:
            yield from _half(program, found, device, number)


def _narrower(precision: str, *, is_end: bool) -> list[int]:
    """The bits to try. The first and the last layer stay at 8: at 1 they cost most of a network's accuracy."""
    inputs, weights = map(int, precision.split("x"))
    return [bits for bits in (8, 1) if (inputs > bits or weights > bits) and not (bits == 1 and is_end)]


def _again(program: Program, found: Profile, device: Device | None, number: int, bits: int) -> Iterator[Advice]:
    instruction, layer = program.instructions[number], found.layers[number]
    source = program.call(instruction).inputs[0].encoding
    given = {8: U8 if source is U8 else I8, 1: BITS}[bits]
    other = _variant(program, instruction, device, given, I8 if bits == 8 else BITS)
    if other is not None:
        change = f"{_name(layer)} at {bits} bit{'s' if bits > 1 else ''} (weights and activations) in place of {layer.precision}"
        yield _advice(program, found, device, number, other, change, _HOW[bits])


def _half(program: Program, found: Profile, device: Device | None, number: int) -> Iterator[Advice]:
    instruction, layer = program.instructions[number], found.layers[number]
    call = program.call(instruction)
    units = call.constants["filter"].shape[0]
    other = _variant(program, instruction, device, call.inputs[0].encoding, call.constants["filter"].encoding, units=units // 2)
    if other is not None and units > 1:
        change = f"{units // 2:,} units in place of {units:,} in {_name(layer)}"
        yield _advice(program, found, device, number, other, change, "train the narrower network")


def _advice(program: Program, found: Profile, device: Device | None, number: int, then: InstructionCost, change: str, how: str) -> Advice:
    layer, now = found.layers[number], program_cost(program, _machine(device)).instructions[number]
    storage = now.constants_bytes - then.constants_bytes
    seconds, error = _saved(layer, now, then, found, device)
    in_ram = found.ram_bytes == found.footprint.total_bytes  # else constants are read where the file lies
    ram = (storage if in_ram else 0) + now.derived_bytes - then.derived_bytes
    return Advice(change, how, seconds, storage, ram, PREDICTED, error)


def _saved(
    layer: LayerProfile, now: InstructionCost, then: InstructionCost, found: Profile, device: Device | None
) -> tuple[float | None, float | None]:
    """Seconds that are saved, and their relative error; None where nothing tells what the change would cost."""
    if device is None or layer.seconds is None:
        return None, None
    before, after = (estimate(cost, device, found.footprint.total_bytes) for cost in (now, then))
    saved = layer.seconds * (1 - after.seconds / before.seconds)
    return saved, max(before.expected_error, after.expected_error)


def _machine(device: Device | None) -> Machine:
    return device.machine if device else detect()


def _variant(
    program: Program, instruction: Instruction, device: Device | None, source: Encoding, stored: Encoding, *, units: int | None = None
) -> InstructionCost | None:
    """What this instruction costs with other encodings, or fewer output channels; None where nothing does it."""
    call, definition = program.call(instruction), OPS[instruction.definition.name.removeprefix("residual_")]
    output = program.tensors[instruction.output].type
    shape = call.constants["filter"].shape
    depthwise = len(shape) == 3
    channels = units or (shape[-1] if depthwise else shape[0])
    kinds = {"filter": ConstantType(stored, shape if depthwise else (channels, *shape[1:])), "bias": ConstantType(F32, (channels,))}
    if stored not in FLOATS:
        kinds["scale"] = ConstantType(F32, (channels,))
    result = I8 if source in (I8, U8) and output.encoding is not BITS else F32 if source is not F32 else output.encoding
    if output.encoding is BITS:
        kinds = {"filter": kinds["filter"], "threshold": ConstantType(Encoding.INT32, (channels,))}
        result = BITS
    # Of values that differ from role to role: equal constants would be stored once.
    constants: dict[str, np.ndarray] = {
        role: np.full(kind.shape, value, _DTYPES[kind.encoding]) for value, (role, kind) in enumerate(kinds.items())
    }
    attrs = {name: value for name, value in instruction.attributes().items() if name in definition.attrs}
    types = {
        "x": replace(call.inputs[0], encoding=source, halo=NO_HALO),
        "y": TensorType((*output.shape[:-1], channels), result),
    }
    node = Node(definition.name, ("x",), "y", attrs, constants, filter_bits=stored.bits if stored in NARROW else 0)
    try:
        alone = to_program(Graph("variant", ("x",), ("y",), (node,), types).verify("costing"))
        return program_cost(alone, _machine(device)).instructions[-1]
    except (ModelError, OpError, FormatError):
        return None  # there is no such operation, or no kernel of it, so it is no alternative


def _name(layer: LayerProfile) -> str:
    return "+".join(layer.layers) or layer.operation


# -- the arena -----------------------------------------------------------------------------------------------------------------


def _arena(program: Program, found: Profile) -> Iterator[Advice]:
    """What the arena would take if the float tensors between the layers were of 8 bits."""
    ends = {*program.inputs, *program.outputs}
    floats = {i for i, tensor in enumerate(program.tensors) if tensor.type.encoding is F32 and i not in ends}
    if not floats:
        return
    sizes = [tensor.type.nbytes for tensor in program.tensors]
    lives = _lifetimes(program)
    now, then = (arena.plan(each, lives)[1] for each in (sizes, [size // 4 if i in floats else size for i, size in enumerate(sizes)]))
    saved = min(now - then, found.footprint.arena_bytes)
    change = f"activations of 8 bits in place of 32 between all layers: a smaller arena, {then:,} in place of {now:,} bytes"
    yield Advice(change, _HOW[8], None, 0, saved, PREDICTED, None)


def _lifetimes(program: Program) -> list[arena.Lifetime]:
    end = len(program.instructions)
    first = {number: i for i, each in enumerate(program.instructions) for number in each.outputs}
    last = {number: i for i, each in enumerate(program.instructions) for number in each.inputs} | dict.fromkeys(program.outputs, end)
    return [arena.Lifetime(first.get(i, -1), last.get(i, first.get(i, -1))) for i in range(len(program.tensors))]


def sentence(advice: Advice, seconds: float | None) -> str:
    """The advice in words; `seconds` is what an inference takes now."""
    from edge.console import bytes_text, seconds_text

    saves = []
    if advice.seconds is not None and seconds:
        error = f", expected error {100 * advice.expected_error:.0f} %" if advice.expected_error is not None else ""
        saves.append(f"{seconds_text(abs(advice.seconds))} {'less' if advice.seconds >= 0 else 'more'} "
                     f"({-100 * advice.seconds / seconds:+.0f} %, {advice.basis}{error})")  # fmt: skip
    for nbytes, what in ((advice.storage_bytes, "storage"), (advice.ram_bytes, "RAM")):
        if nbytes:
            saves.append(f"{bytes_text(abs(nbytes))} {'less' if nbytes > 0 else 'more'} {what}")
    return f"{advice.change}: {', '.join(saves)}; {advice.how}"
