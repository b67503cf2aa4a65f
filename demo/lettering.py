"""Typefaces and letters: matplotlib's fonts and Pillow's, so the same ones on every machine."""

import math
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

# Some typefaces hold plain letters only; these signs have a usual spelling without them.
PLAIN_SPELLING = str.maketrans({"€": "EUR ", "£": "GBP ", "–": "-", "’": "'", "œ": "oe"})


@dataclass(frozen=True)
class Typeface:
    """File names of a family's three styles; None stands for Pillow's built-in font."""

    plain: str | None
    bold: str | None
    italic: str | None
    has_accents: bool = True


SANS = Typeface("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf")
SERIF = Typeface("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf")
MONO = Typeface("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSansMono-Oblique.ttf")
TIMES = Typeface("STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf")
SLANTED = Typeface("STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf", "STIXGeneralItalic.ttf")
ROMAN = Typeface("cmr10.ttf", "cmb10.ttf", "cmti10.ttf", has_accents=False)
GROTESQUE = Typeface("cmss10.ttf", "cmss10.ttf", "cmss10.ttf", has_accents=False)
TYPEWRITER = Typeface("cmtt10.ttf", "cmtt10.ttf", "cmtt10.ttf", has_accents=False)
PLAIN = Typeface(None, None, None, has_accents=False)

READING = (SANS, SERIF, TIMES, ROMAN, GROTESQUE, PLAIN)
FIXED_WIDTH = (MONO, TYPEWRITER)


@dataclass(frozen=True)
class Letters:
    """A typeface's style at one size."""

    font: ImageFont.FreeTypeFont
    has_accents: bool

    def spell(self, text: str) -> str:
        """Return the text with the signs that this font has."""
        if self.has_accents:
            return text
        decomposed = unicodedata.normalize("NFKD", text.translate(PLAIN_SPELLING))
        return decomposed.encode("ascii", "ignore").decode()

    def width(self, text: str) -> float:
        """Return the width of the text in pixels."""
        return _measure(self.font, self.spell(text))

    def wrap(self, text: str, width: float) -> list[str]:
        """Return the text in lines no wider than `width` pixels."""
        lines, free = [""], width
        for word in text.split():
            needed = self.width(word + " ")
            if needed > free:
                lines, free = [*lines, ""], width
            lines[-1] += word + " "
            free -= needed
        return [line.rstrip() for line in lines if line]


def letters(
    typeface: Typeface, size: float, style: str = "plain", text: str = "", width: float = math.inf
) -> Letters:
    """Return the typeface at `size` pixels, or smaller so that `text` is no wider than `width`."""
    whole = max(7, round(size))
    found = Letters(_load(getattr(typeface, style), whole), typeface.has_accents)
    needed = found.width(text)
    return found if needed <= width else letters(typeface, size * width / needed, style)


@cache
def _measure(font: ImageFont.FreeTypeFont, text: str) -> float:
    return font.getlength(text)


@cache
def _load(file_name: str | None, size: int) -> ImageFont.FreeTypeFont:
    if file_name is None:
        return ImageFont.load_default(size)
    # Looked up, not imported: importing matplotlib takes half a second.
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("matplotlib is missing (its fonts): pip install matplotlib")
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / file_name
    # The basic layout is fast, and is there in every Pillow; Raqm is not.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
