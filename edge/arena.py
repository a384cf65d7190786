"""Where tensors lie in the arena: tensors that are never alive together share bytes.

A tensor is alive from the instruction that writes it to the last one that reads it, both included. Greedy by size: the largest tensor is
placed first, each at the lowest place free during its whole life, which comes within a few per cent of the best plan for networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge.program import ALIGNMENT
from edge.tensors import TensorType


@dataclass(frozen=True)
class Lifetime:
    """The first and last instruction during which a tensor is alive; -1 is before the first instruction."""

    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class _Block:
    """Bytes that one tensor uses, or several after each other, each written over the one before."""

    tensors: tuple[int, ...]
    nbytes: int
    life: Lifetime


def plan(sizes: Sequence[int], lifetimes: Sequence[Lifetime], *, in_place: Mapping[int, int] | None = None) -> tuple[tuple[int, ...], int]:
    """The offset of each tensor and the bytes of the arena, all multiples of 64.

    `in_place` maps a tensor to the one it shall be written over, which must have the same size and die where the tensor is born.
    The plan depends on nothing but the arguments. Raises ValueError for a pair that cannot share.
    """
    placed: list[tuple[int, _Block]] = []
    offsets = [0] * len(sizes)
    for block in sorted(_blocks(sizes, lifetimes, in_place or {}), key=lambda b: (-b.nbytes, b.life.first, b.tensors)):
        offset = _first_gap(block.nbytes, (other for other in placed if other[1].life.overlaps(block.life)))
        placed.append((offset, block))
        for tensor in block.tensors:
            offsets[tensor] = offset
    return tuple(offsets), max((offset + block.nbytes for offset, block in placed), default=0)


def _blocks(sizes: Sequence[int], lifetimes: Sequence[Lifetime], in_place: Mapping[int, int]) -> list[_Block]:
    """One block for each tensor, or for each chain of tensors written over each other."""
    chains = {tensor: [tensor] for tensor in range(len(sizes))}
    for tensor, source in sorted(in_place.items(), key=lambda pair: lifetimes[pair[0]].first):
        if sizes[tensor] != sizes[source] or lifetimes[source].last != lifetimes[tensor].first:
            raise ValueError(f"tensor {tensor} cannot be written over tensor {source}: its size or its time differs")
        chains[source].append(tensor)
        chains[tensor] = chains[source]
    unique = {id(chain): tuple(chain) for chain in chains.values()}
    return [_block(chain, sizes, lifetimes) for chain in unique.values()]


def _block(chain: tuple[int, ...], sizes: Sequence[int], lifetimes: Sequence[Lifetime]) -> _Block:
    life = Lifetime(min(lifetimes[t].first for t in chain), max(lifetimes[t].last for t in chain))
    return _Block(chain, round_up(sizes[chain[0]]), life)


def _first_gap(nbytes: int, occupied: Iterable[tuple[int, _Block]]) -> int:
    """The lowest offset at which `nbytes` fit between the occupied blocks."""
    end = 0
    for offset, block in sorted(occupied, key=lambda pair: pair[0]):
        if offset - end >= nbytes:
            return end
        end = max(end, offset + block.nbytes)
    return end


def round_up(nbytes: int) -> int:
    """The next multiple of the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def may_share(source: TensorType, output: TensorType) -> bool:
    """Whether an output may lie on the first input of an operation that works in place: same bytes, no halo on either."""
    return source.nbytes == output.nbytes and not source.halo and not output.halo
