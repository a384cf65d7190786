"""Draw docs/clocks.png, eight pictures of each dial of `edge.clocks`: `python docs/clock_sheet.py`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from edge.clocks import contact_sheet

if __name__ == "__main__":
    sheet = Image.fromarray(contact_sheet())
    sheet.reduce(2).quantize(32).save(Path(__file__).with_name("clocks.png"), optimize=True)
