"""`edge run`: classify pictures, folders of pictures and arrays."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, Number, idle_options, json_option, overrides, preprocessing_options
from edge.console import (
    Column,
    Progress,
    compiling,
    count_text,
    out,
    out_json,
    out_table,
    say,
    seconds_text,
    warn,
)
from edge.errors import EdgeError, InputError

if TYPE_CHECKING:
    from edge.cli_classify import Batch, Classifier, Failure, Result
    from edge.cli_model import Model
    from edge.cli_outputs import Writer
    from edge.cli_stream import Stream
    from edge.feeds import JointItem
    from edge.items import Item
    from edge.preprocess import Preprocess

KINDS = ("probabilities", "sigmoid", "logits", "values", "picture")
MOST_BLOCKS = 10  # items; of more each gets one line
LONG_BATCH = 20  # items from which progress is shown

EPILOG = """
\b
Examples:
  edge run image.png                       with the one .edge file in this folder, or $EDGE_MODEL
  edge run -m digits image.png             with the example model that comes with edge
  edge run -m cats.edge photos/ more.jpg   pictures of a folder, and another
  edge run test.npz -k 1                   arrays; with labels in the file the accuracy follows
  edge run photo.jpg --invert --resize crop --save-input seen.png
  edge run -m two.edge both.npz            several inputs: an array for each, by name
  edge run -m gan.edge --input label=3 --input noise=noise.npy -o faces/
  edge run --watch inbox/ --json           what appears in a folder, a line of JSON for each picture
  edge run --camera --every 10             stills of a Raspberry Pi's camera, or of --device /dev/video0

\b
PICTURE may be PNG, JPEG, BMP, GIF, PPM or WebP, a folder of these, or .npy / .npz.
uint8 arrays are pictures; float arrays go to the net as they are. Where a model takes more than a picture, give the rest by
--input NAME=FILE.npy (or a number, or several: 0.5,1,2), or everything in an .npz with an array for each input.
"""


@click.command(epilog=EPILOG)
@click.argument("pictures", nargs=-1, type=PATH, metavar="PICTURE...")
@click.option("-m", "--model", metavar="MODEL", help="A .edge or .tflite file, or a name of `edge zoo trained`.")
@click.option("--input", "given", multiple=True, metavar="NAME=VALUE", help="An input by name: numbers, or a file; repeatable.")
@click.option("--labels", type=PATH, metavar="FILE", help="Names of the classes: .txt, .csv or .json.")
@click.option("-k", "--top", "k", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to show.")
@click.option("--kind", type=click.Choice(KINDS), help="What the outputs are, where the file does not say or says it wrong.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Where to write picture outputs: a .png, or a folder.")
@click.option("--save-input", type=PATH, metavar="FILE", help="Write the picture as the net sees it: a .png, or a folder.")
@click.option("--watch", type=PATH, metavar="DIR", help="Classify the pictures that appear in a folder, until interrupted.")
@click.option("--existing", is_flag=True, help="With --watch: those that are there already, too.")
@click.option("--camera", is_flag=True, help="Classify stills of a camera, until interrupted.")
@click.option("--device", type=PATH, metavar="FILE", help="With --camera: a Video4Linux device such as /dev/video0.")
@click.option("--every", type=Number(0, 86400), default=2.0, show_default=True, help="With --camera: seconds between stills.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="With --watch and --camera: end after N pictures.")
@click.option("--timing", is_flag=True, help="Show where the time goes, by stage and by layer.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, metavar="N", help="Run each picture N times; latencies are medians.")
@preprocessing_options
@json_option
def run(pictures: tuple[str, ...], model: str | None, **options: Any) -> None:
    """Classify pictures with a converted model, or run it on arrays.

    The model is the one named with -m, else the one in $EDGE_MODEL, else the only .edge file of this folder (a .tflite file counts where
    there is no .edge). What the net sees of a picture is stored in the file; options given here replace it.
    """
    from edge.cli_classify import expand

    changed = overrides(options)
    stream = _stream(pictures, options)
    absent = _say_absent(pictures) if stream is None else frozenset()
    started = time.perf_counter()
    chosen = _load(model)
    load_s = time.perf_counter() - started
    preprocess, origin = _preprocess(chosen, changed)
    classify = _classifier(chosen, preprocess, options)
    for remark in idle_options(changed, classify.shape[-1], preprocess.resize):
        warn(remark)
    if stream is not None:
        from edge.cli_stream import run_stream

        run_stream(classify, stream)
        return
    batch = expand(pictures, classify.feeds, classify.classes)
    for remark in classify.remarks(batch):
        warn(f"no accuracy, since {remark}")
    task = _Run(classify, batch, _writer(preprocess, batch, options), origin, load_s, options, said=absent)
    task.run()
    if task.failures:
        raise click.exceptions.Exit(1)


def _stream(pictures: tuple[str, ...], options: dict[str, Any]) -> Stream | None:
    """The folder or camera that was asked for; None where pictures are named. Anything else is wrong usage."""
    watch, camera = options.pop("watch"), options.pop("camera")
    given = {name: options.pop(name) for name in ("device", "every", "count", "existing")}
    named = bool(pictures) or bool(options["given"] and watch is None and not camera)
    if named + (watch is not None) + camera != 1:
        raise click.UsageError("Name pictures, or --watch DIR, or --camera: one of the three.")
    if named:
        return None
    if options["timing"] or options["output"] or options["save_input"]:
        raise click.UsageError("--timing, --output and --save-input are for pictures that are named.")
    from edge.cli_stream import Stream

    return Stream(watch=watch, as_json=options["as_json"], **given)


def _say_absent(pictures: tuple[str, ...]) -> frozenset[str]:
    """Name the paths that lead nowhere before a model is loaded, and end the run where no other is left."""
    from edge.paths import require_file

    absent = []
    for path in filter(None, pictures):
        try:
            if not os.path.isdir(path):
                require_file(path, "input")
        except InputError as err:
            absent.append(path)
            say(str(err), style="red")
    if absent and len(absent) == len(pictures):
        raise click.exceptions.Exit(1)
    return frozenset(absent)


def _load(name: str | None) -> Model:
    from edge.cli_cache import is_cached
    from edge.cli_model import find_model, load_model

    path = find_model(name)
    with compiling(is_cached()) as progress:
        return load_model(path, progress=progress)


def _preprocess(model: Model, changed: dict[str, Any]) -> tuple[Preprocess, str]:
    """What is done to pictures, and a remark where that is a guess."""
    from edge.preprocess import combine, default_for

    known = model.preprocess or default_for(model.takes_bytes)
    guessed = model.preprocess is None and not {"preset", "range"} & set(changed)
    return combine(known, changed), "; assumed, since the file does not say: see --preset" if guessed else ""


def _classifier(model: Model, preprocess: Preprocess, options: dict[str, Any]) -> Classifier:
    from edge.cli_classify import classifier
    from edge.labels import read_labels

    labels = read_labels(options["labels"]) if options["labels"] else model.labels
    chosen = {name: options[name] for name in ("kind", "k", "repeat", "given")}
    return classifier(model, preprocess, labels=labels, **chosen)


def _writer(preprocess: Preprocess, batch: Batch, options: dict[str, Any]) -> Writer | None:
    """What writes pictures, where any are asked for."""
    if options["output"] is None and options["save_input"] is None:
        return None
    from edge.cli_outputs import Writer, check_destination

    check_destination(options["output"], batch, "--output")
    check_destination(options["save_input"], batch, "--save-input")
    return Writer(preprocess, output=options["output"], save_input=options["save_input"])


@dataclass
class _Run:
    """One run of the command: what was asked, and what came of it so far. said: names of items whose failure is known already."""

    classify: Classifier
    batch: Batch
    writer: Writer | None
    origin: str
    load_s: float
    options: dict[str, Any]
    said: frozenset[str] = frozenset()
    failures: int = 0
    judged: list[bool] = field(default_factory=list)
    times: list[tuple[float, float, float]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    last: Result | None = None
    _announced: bool = False

    @property
    def as_json(self) -> bool:
        return bool(self.options["as_json"])

    def run(self) -> None:
        with Progress("running") as progress:
            for done, result in enumerate(self._results(), 1):
                progress.clear()
                self._take(result)
                if len(self.batch) >= LONG_BATCH:
                    progress.update(done, len(self.batch))
        if self.as_json:
            out_json(self._document())
        else:
            self._print_end()

    def _results(self) -> Iterator[Result | Failure]:
        from edge.cli_classify import attempt

        for item in self.batch:
            self._announce(item)
            yield attempt(self.classify, item)

    def _announce(self, item: Item | JointItem | Failure) -> None:
        """Say once what the net sees of pictures; one that cannot see any is the end of the run, not the fault of a picture."""
        if not self._announced and getattr(item, "is_picture", False):
            self._announced = True
            self.classify.preprocess.check(self.classify.shape)
            say(f"{self.classify.model.path.name} sees {self.classify.preprocess.describe(self.classify.shape)}{self.origin}")

    def _take(self, result: Result | Failure) -> None:
        from edge.cli_answers import entry_of, print_result
        from edge.cli_classify import Failure

        if isinstance(result, Failure):
            self._fail(result.name, result.error)
            return
        try:
            saved = self.writer.save(result) if self.writer else {}
        except EdgeError as err:
            self._fail(result.name, str(err))
            return
        self._count(result)
        if self.as_json:
            self.entries.append(entry_of(result, saved))
        else:
            print_result(result, saved, lines=len(self.batch) > MOST_BLOCKS)

    def _fail(self, name: str, error: str) -> None:
        self.failures += 1
        self.entries.append({"name": name, "error": error})
        if name not in self.said:
            say(error, style="red")

    def _count(self, result: Result) -> None:
        self.last = result
        self.times.append((result.read_s, result.preprocess_s, result.run_s))
        if result.correct is not None:
            self.judged.append(result.correct)

    # -- the end -------------------------------------------------------------------------------------------------------------

    def _print_end(self) -> None:
        if self.judged:
            right = sum(self.judged)
            out(f"\naccuracy {100 * right / len(self.judged):.2f} % ({right:,} of {len(self.judged):,})")
        if self.failures and len(self.batch) > 1:
            say(f"{count_text(self.failures, 'item')} of {len(self.batch):,} failed")
        if self.options["timing"] and self.last is not None:
            self._print_timing(self.last)

    def _stages(self) -> dict[str, float]:
        """Seconds by stage; medians over the items."""
        read, preprocess, inference = map(statistics.median, zip(*self.times, strict=True))
        return {"load_model": self.load_s, "read": read, "preprocess": preprocess, "inference": inference}

    def _print_timing(self, last: Result) -> None:
        many = f" (median of {len(self.times):,})" if len(self.times) > 1 else ""
        out("")
        for name, seconds in self._stages().items():
            out(f"{name.replace('_', ' '):<12}{seconds_text(seconds):>9}{'' if name == 'load_model' else many}")
        layers = _layer_times(self.classify.model, last, self.options["repeat"])
        if layers:
            out("")
            total = sum(layer["seconds"] for layer in layers)
            rows = [_timing_row(layer, total) for layer in layers]
            columns = [Column("layer", folds=True), Column("operation"), Column("kernel", folds=True)]
            columns += [Column("time", right=True), Column("share", right=True)]
            out_table(columns, rows, total=["", "", "", seconds_text(total), ""])

    def _document(self) -> dict[str, Any]:
        model, preprocess = self.classify.model, self.classify.preprocess
        right = sum(self.judged)
        document: dict[str, Any] = {
            "model": str(model.path),
            "backend": model.backend,
            "preprocessing": {"description": preprocess.describe(self.classify.shape), **preprocess.to_json()},
            "results": self.entries,
            "failed": self.failures,
            "accuracy": {"right": right, "of": len(self.judged), "share": right / len(self.judged)} if self.judged else None,
        }
        if self.options["timing"] and self.last is not None:
            layers = _layer_times(model, self.last, self.options["repeat"])
            document["timing"] = {"seconds": self._stages(), "layers": layers}
        return document


def _timing_row(layer: dict[str, Any], total: float) -> list[str]:
    seconds = layer["seconds"]
    return [layer["layers"], layer["op"], layer["kernel"], seconds_text(seconds), f"{100 * seconds / total:.1f} %"]


def _layer_times(model: Model, result: Result, repeat: int) -> list[dict[str, Any]]:
    """Each instruction of edge's own engine with its median time; none for other backends."""
    if model.engine is None:
        return []
    engine = model.engine
    seconds = engine.times(result.seen, max(repeat, 5))
    names = engine.program.layers or ((),) * len(engine.program.instructions)
    rows = zip(engine.program.instructions, names, engine.kernels, seconds.T, strict=True)
    return [
        {"layers": " + ".join(layers), "op": instruction.definition.name, "kernel": kernel, "seconds": statistics.median(column.tolist())}
        for instruction, layers, kernel, column in rows
    ]
