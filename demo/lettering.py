"""Typefaces and the writing of text on an image.

The fonts are those that matplotlib ships, and Pillow's own, so that the images look the same on
every machine, whatever fonts the system has.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]

# Some typefaces hold plain letters only; these signs have a usual spelling without them.
PLAIN_SPELLING = str.maketrans({"€": "EUR ", "£": "GBP ", "–": "-", "·": "*", "’": "'", "œ": "oe"})


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
    size: int  # pixels

    def spell(self, text: str) -> str:
        """The text with the signs that this font has."""
        if self.has_accents:
            return text
        decomposed = unicodedata.normalize("NFKD", text.translate(PLAIN_SPELLING))
        return decomposed.encode("ascii", "ignore").decode()

    def width(self, text: str) -> float:
        """Width of the text in pixels."""
        return self.font.getlength(self.spell(text))

    def write(
        self,
        pen: ImageDraw.ImageDraw,
        position: tuple[float, float],
        text: str,
        colour: Colour | int,
        anchor: str = "ls",
    ) -> None:
        """Write one line of text; the anchor is Pillow's, by default left on the baseline."""
        pen.text(position, self.spell(text), font=self.font, fill=colour, anchor=anchor)

    def wrap(self, text: str, width: float) -> list[str]:
        """Break the text into lines no wider than `width` pixels."""
        space = self.width(" ")
        lines: list[list[str]] = [[]]
        used = 0.0
        for word in text.split():
            length = self.width(word)
            if lines[-1] and used + length > width:
                lines.append([])
                used = 0.0
            lines[-1].append(word)
            used += length + space
        return [" ".join(line) for line in lines]


@cache
def _load(file_name: str | None, size: int) -> ImageFont.FreeTypeFont:
    if file_name is None:
        return ImageFont.load_default(size)
    # The basic layout is fast, and is there in every Pillow; Raqm is not.
    path = str(_font_folder() / file_name)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _font_folder() -> Path:
    # Looked up, not imported: matplotlib takes half a second that nobody needs here.
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "matplotlib is missing; its fonts are needed: pip install matplotlib"
        )
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


def letters(typeface: Typeface, size: float, style: str = "plain") -> Letters:
    """The typeface at `size` pixels; `style` is plain, bold or italic."""
    whole = max(7, round(size))
    return Letters(_load(getattr(typeface, style), whole), typeface.has_accents, whole)


def largest_letters(
    typeface: Typeface, text: str, width: float, size: float, style: str = "plain"
) -> Letters:
    """The typeface at `size` pixels, or smaller so that the text is no wider than `width`."""
    wanted = letters(typeface, size, style)
    needed = wanted.width(text)
    return wanted if needed <= width else letters(typeface, size * width / needed, style)


def pick(rng: np.random.Generator, choices):
    """One of the choices, which may be of any type."""
    return choices[int(rng.integers(len(choices)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)
