"""One result of `edge run`: as text for people, and as an entry of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.console import out, printable, say, seconds_text, shape_text, styled

if TYPE_CHECKING:
    from edge.cli_classify import Answer, Result


def print_result(result: Result, saved: dict[str, Path], *, lines: bool) -> None:
    """A block for each result, or a line."""
    name, latency = printable(result.name), styled(seconds_text(result.run_s), "dim")
    true = "" if result.correct is not False else styled(f"  (true: {_true_name(result)})", "yellow")
    if lines:
        answers = "; ".join(_titled(answer, result, _line(answer)) for answer in result.answers)
        out(f"{name}: {answers}  {latency}{true}")
    else:
        out(f"{styled(name, 'bold')}  {latency}{true}")
        for answer in result.answers:
            _print_block(answer, result)
    for what, path in saved.items():
        say(f"{what} written to {path}")


def _true_name(result: Result) -> str:
    ranked = result.classes.ranked if result.classes else None
    known = {entry.index: entry.name for entry in ranked or ()}
    return printable(known.get(result.label or 0, str(result.label)))


def _titled(answer: Answer, result: Result, text: str) -> str:
    return f"{printable(answer.head.name)} {text}" if len(result.answers) > 1 else text


def _line(answer: Answer) -> str:
    from edge.answers import format_value

    if answer.ranked is None:
        return _summary(answer)
    return ", ".join(f"{printable(entry.name)} {format_value(entry.value, answer.head.kind)}" for entry in answer.ranked)


def _print_block(answer: Answer, result: Result) -> None:
    from edge.answers import format_top

    indent = "  "
    if len(result.answers) > 1:
        out(f"{indent}{printable(answer.head.name)}")
        indent *= 2
    text = _summary(answer) if answer.ranked is None else format_top(answer.ranked, answer.head.kind)
    for number, line in enumerate(text.split("\n")):
        out(indent + styled(printable(line), "bold" if number == 0 else None))


def _summary(answer: Answer) -> str:
    """What can be said in a line of an output that names no classes."""
    values = f"{shape_text(answer.values.shape)}, {answer.values.min():.4g} to {answer.values.max():.4g}"
    how = "write it with -o FILE.png" if answer.head.kind == "picture" else "its values are in --json"
    return f"{'picture' if answer.head.kind == 'picture' else 'array'} {values}; {how}"


def entry_of(result: Result, saved: dict[str, Path]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": result.name, "latency_s": result.run_s, "outputs": [_output_entry(a) for a in result.answers]}
    if result.label is not None:
        entry |= {"true_class": result.label, "correct": result.correct}
    return entry | {what: str(path) for what, path in saved.items()}


def _output_entry(answer: Answer) -> dict[str, Any]:
    from edge.answers import top_to_json

    ranked = {"kind": answer.head.kind} if answer.ranked is None else top_to_json(answer.ranked, answer.head.kind)
    return {"name": answer.head.name, **ranked, "shape": list(answer.values.shape), "values": answer.values.tolist()}
