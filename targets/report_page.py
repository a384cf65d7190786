"""The page of `edge profile --html`: one file that needs nothing else, readable on light and dark grounds and without scripts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from edge.console import bytes_text, printable, seconds_text
from edge.targets.advice import sentence
from edge.targets.profile import LayerProfile, Profile
from edge.targets.report_plots import precision_class, roofline
from edge.targets.survey import Survey, Variant

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2126; --soft: #5c6670; --line: #dde2e6; --raised: #f5f7f8; --good: #12805c;
  --bad: #c2410c; --one: #0d9488; --eight: #d97706; --float: #7c6bd6; --mixed: #3b82c4; --none: #8a949e; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --text: #e6e9ec; --soft: #9aa4ae; --line: #333b43; --raised: #1b2127;
  --good: #4ade80; --bad: #fb923c; --one: #2dd4bf; --eight: #f2a541; --float: #a99bf0; --mixed: #6cb0ec; --none: #7d8791; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 66rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .25rem; }
p { margin: .25rem 0 .75rem; color: var(--soft); max-width: 56rem; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none; }
.facts li { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; min-width: 9rem; }
.facts b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; } .facts span { color: var(--soft); font-size: .8rem; }
.help { border-left: 3px solid var(--one); background: var(--raised); padding: .6rem .9rem; color: var(--text); overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.device { white-space: normal; text-align: left; vertical-align: top; min-width: 9rem; max-width: 16rem; }
.label { text-align: left; } .layers td.label { max-width: 12.5rem; } .layers td.plot { min-width: 7rem; width: 20%; }
td.label { max-width: 17rem; overflow: hidden; text-overflow: ellipsis; }
tr.first td { border-top: 2px solid var(--line); } tr.total td { font-weight: 600; border-bottom: 0; }
td.plot { width: 24%; min-width: 9rem; text-align: left; }
.bar { display: flex; height: .85rem; } .bar i { display: block; height: 100%; min-width: 1px; background: var(--ink); }
.bar i.soft { opacity: .45; } .bar i.faint { opacity: .2; }
.guess i { background: repeating-linear-gradient(135deg, var(--ink) 0 4px, color-mix(in srgb, var(--ink) 55%, var(--page)) 4px 7px); }
.one { --ink: var(--one); } .eight { --ink: var(--eight); } .float { --ink: var(--float); } .mixed { --ink: var(--mixed); }
.none { --ink: var(--none); }
.tag { border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem; font-size: .78rem; color: var(--soft); }
.tag.measured { color: var(--good); border-color: currentColor; } .no { color: var(--bad); font-weight: 600; } .yes { color: var(--good); }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .82rem; color: var(--soft); margin: .25rem 0 .75rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -.1rem; background: var(--ink); }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; } svg text { fill: var(--soft); }
svg g text { fill: var(--text); paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
svg .grid { stroke: var(--line); } svg .slope { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .roof { stroke: var(--ink); stroke-width: 1.2; opacity: .7; } svg .roof-name { fill: var(--ink); }
svg circle { fill: var(--ink); stroke: var(--page); stroke-width: 1.5; }
details { margin: .75rem 0; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
"""
_KEY = (("one", "1 bit"), ("eight", "8 bits"), ("mixed", "weights of fewer bits than activations"), ("float", "float32"), ("none", "none"))
_VERSIONS = {"1 bit": "one", "8 bits": "eight", "32 bits": "float", "1-bit weights": "mixed"}
_SINGLE = "This is one converted file. Give its Keras source in its place, and its widths stand here side by side."
_METHOD = (
    "Bytes are exact. A time is marked measured where it was taken on this machine; predicted (hatched) where it follows from instruction "
    "counts of the kernels and the profile of the device; emulated where every instruction was counted. What would help is always an "
    "estimate, without what a change does to the layers around it, or to the answers."
)


def page(found: Survey) -> str:
    """The page as one HTML file: the first device of the survey in detail, all of them side by side."""
    detailed = [each for each in found.variants if each.target == found.variants[0].target]
    main = detailed[-1]
    title = html.escape(printable(found.model))
    body = [
        f"<h1>{title}</h1><p>on {html.escape(main.profile.title)}{_version(main)}, instruction set {html.escape(main.profile.isa)}</p>",
        _cards(main.profile),
        _help(main),
        "<h2>All devices, side by side</h2>",
        f"<p>{html.escape(_remarks(found, len(detailed)))}</p>",
        _side_by_side(found),
        "<h2>Layers</h2><p>Time on one thread; bytes of constants in the file, of what is derived from them at load (lighter), and of the "
        "output (faint), which shares the arena.</p>",
        _key(),
        *(_layers(each, is_open=each is main) for each in reversed(detailed)),
        *_roofline(main),
        f"<footer><p>{_METHOD}</p></footer>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}: profile</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _remarks(found: Survey, versions: int) -> str:
    remarks = [f"{remark[:1].upper()}{remark[1:]}." for remark in found.remarks]
    return f"One thread. {_SINGLE}" if versions == 1 else " ".join(["One thread. Bars compare the versions on one device.", *remarks])


def _version(variant: Variant) -> str:
    return f" at {html.escape(variant.name)}" if variant.name else ""


# -- the model -----------------------------------------------------------------------------------------------------------------


def _cards(found: Profile) -> str:
    cards = [
        (bytes_text(found.storage_bytes), f"storage{_fits_text(found.fits_storage)}"),
        (bytes_text(found.ram_bytes), f"RAM{_fits_text(found.fits_memory)}"),
        (f"{sum(found.macs.values()):,}", _macs_text(found)),
    ]
    if found.seconds is None:
        return _list([*cards, ("not known", "time: no kernels for this device yet")])
    cards += [
        (seconds_text(seconds), f"{threads} thread{'s' if threads > 1 else ''}, {_basis(found)}")
        for threads, seconds in found.seconds_by_threads.items()
    ]
    return _list([*cards, (f"{100 * (1 - (found.one_bit_share or 0)):.0f} %", f"of the time is not 1-bit ({found.time_basis})")])


def _macs_text(found: Profile) -> str:
    total = sum(found.macs.values())
    shares = ", ".join(f"{100 * count / total:.0f} % {precision}" for precision, count in found.macs.items())
    return f"multiply-accumulates{f' ({shares} bits)' if shares else ''}"


def _list(cards: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<li><b>{html.escape(value)}</b><span>{html.escape(name)}</span></li>" for value, name in cards)
    return f'<ul class="facts">{items}</ul>'


def _basis(found: Profile) -> str:
    return f"{found.time_basis}, ± {100 * (found.expected_error or 0):.0f} %"


def _fits_text(fits: bool | None) -> str:
    return "" if fits is None else ", fits" if fits else ", does not fit"


def _help(variant: Variant) -> str:
    if not variant.advice:
        return '<p class="help">Nothing that edge knows of would help.</p>'
    first, *rest = (html.escape(printable(sentence(each, variant.profile.seconds))) for each in variant.advice[:6])
    more = f"<details><summary>Other changes</summary><ul>{''.join(f'<li>{each}</li>' for each in rest)}</ul></details>" if rest else ""
    return f'<p class="help"><b>Would help most:</b> {first}</p>{more}'


# -- devices -------------------------------------------------------------------------------------------------------------------


def _side_by_side(found: Survey) -> str:
    names = ("device", "version", "storage", "RAM", "fits", "time", "", "")
    head = "".join(f'<th class="label">{name}</th>' if name in ("device", "version", "") else f"<th>{name}</th>" for name in names)
    rows = [row for target in dict.fromkeys(each.target for each in found.variants) for row in _device_rows(found, target)]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _shade(version: str) -> str:
    return _VERSIONS.get(version, "mixed" if version else "none")


def _device_rows(found: Survey, target: str) -> Iterator[str]:
    variants = [each for each in found.variants if each.target == target]
    compared = variants if len(variants) > 1 else found.variants  # of one version the devices are compared
    longest = max((each.profile.seconds or 0.0 for each in compared), default=0.0)
    for i, each in enumerate(variants):
        profile = each.profile
        bar = _bar([(profile.seconds or 0.0, "")], longest, _shade(each.name), is_guess=profile.time_basis != "measured")
        basis = f'<span class="tag {profile.time_basis}">{_basis(profile)}</span>' if profile.seconds is not None else ""
        cells = [
            "" if i else f'<td class="device" rowspan="{len(variants)}">{html.escape(printable(profile.title))}</td>',
            _label(each.name or found.model),
            f"<td>{bytes_text(profile.storage_bytes)}</td><td>{bytes_text(profile.ram_bytes)}</td>{_fits(each.fits)}",
            f"<td>{_time(profile.seconds)}</td>", f'<td class="plot">{bar}</td>', f'<td class="label">{basis}</td>',
        ]  # fmt: skip
        yield f"<tr{'' if i else ' class=first'}>{''.join(cells)}</tr>"


def _label(text: str) -> str:
    clean = html.escape(printable(text))
    return f'<td class="label" title="{clean}">{clean}</td>'


def _fits(fits: bool | None) -> str:
    return {None: "<td>–</td>", True: '<td class="yes">yes</td>', False: '<td class="no">no</td>'}[fits]


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else seconds_text(seconds)


def _bar(parts: Sequence[tuple[float, str]], longest: float, ink: str, *, is_guess: bool = False) -> str:
    """Stretches one after the other, (size, class), against the longest bar of the column."""
    if longest <= 0:
        return ""
    drawn = "".join(f'<i class="{name}" style="width:{100 * size / longest:.2f}%"></i>' for size, name in parts if size > 0)
    return f'<div class="bar {ink}{" guess" if is_guess else ""}">{drawn}</div>'


# -- layers --------------------------------------------------------------------------------------------------------------------


def _key() -> str:
    items = "".join(f'<span class="{ink}"><i></i>{name}</span>' for ink, name in _KEY)
    return f'<div class="key"><span>Bits that are multiplied:</span>{items}</div>'


def _layers(variant: Variant, *, is_open: bool) -> str:
    found = variant.profile
    names = ("layers", "operation", "bits", "MACs", "time", "", "bytes", "", "limited by")
    head = "".join(f"<th{'' if name in ('bits', 'MACs', 'time', 'bytes') else ' class=label'}>{name}</th>" for name in names)
    longest = max((layer.seconds or 0.0 for layer in found.layers), default=0.0)
    largest = max((float(sum(_bytes(layer))) for layer in found.layers), default=0.0)
    guess = found.time_basis != "measured"
    rows = "".join(_layer(layer, longest, largest, is_guess=guess) for layer in found.layers)
    total = (
        f'<tr class="total"><td class="label">total</td><td></td><td></td><td>{sum(found.macs.values()):,}</td>'
        f"<td>{_time(found.seconds)}</td><td></td><td>{bytes_text(found.storage_bytes)}</td><td class=label>the file</td><td></td></tr>"
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}{total}</tbody></table></div>'
    summary = f"{html.escape(variant.name or 'This file')} on {html.escape(found.title)}"
    basis = f' <span class="tag {found.time_basis}">{_basis(found)}</span>' if found.seconds is not None else ""
    return f"<details class=layers{' open' if is_open else ''}><summary>{summary}{basis}</summary>{table}</details>"


def _bytes(layer: LayerProfile) -> tuple[int, int, int]:
    return layer.storage_bytes, layer.derived_bytes, layer.output_bytes


def _layer(layer: LayerProfile, longest: float, largest: float, *, is_guess: bool) -> str:
    ink = precision_class(layer.precision)
    sizes = list(zip(map(float, _bytes(layer)), ("", "soft", "faint"), strict=True))
    cells = [
        _label("+".join(layer.layers) or "–"), f'<td class="label">{html.escape(layer.operation)}</td>',
        f"<td>{layer.precision or '–'}</td><td>{f'{layer.macs:,}' if layer.macs else '–'}</td><td>{_time(layer.seconds)}</td>",
        f'<td class="plot">{_bar([(layer.seconds or 0.0, "")], longest, ink, is_guess=is_guess)}</td>',
        f"<td>{bytes_text(sum(_bytes(layer)))}</td>", f'<td class="plot">{_bar(sizes, largest, ink)}</td>',
        f'<td class="label">{layer.limit or "–"}</td>',
    ]  # fmt: skip
    return f"<tr>{''.join(cells)}</tr>"


def _roofline(variant: Variant) -> list[str]:
    drawn = roofline(variant.profile, variant.device, variant.roofs)
    if drawn is None:
        return []
    known = "Dashed slopes are what a memory can bring, levels what the fastest kernel of so many bits does."
    slopes = known if variant.roofs else "edge targets calibrate adds what its memories and kernels can do."
    where = f"{html.escape(variant.profile.title)}{_version(variant)}"
    about = f"Layers that multiply, on {where}; times are {variant.profile.time_basis}. {slopes}"
    return ["<h2>Roofline</h2>", f"<p>{about}</p>", f"<figure style='margin:0'>{drawn}</figure>"]
