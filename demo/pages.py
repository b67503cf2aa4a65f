"""Pages that are written line by line, in columns."""

from copy import copy
from dataclasses import dataclass

import numpy as np
from canvas import Canvas
from lettering import Letters, Typeface, letters
from surfaces import Colour, Size, chance, colours, paper, pick, shade, vary

PAPERS = colours("fcfbf7 ffffff f6eedc eee2c8 e8eee8 f0ecf0")
TINTS = colours("faf0aa d6e6f4 f4d6ce d8ecd0")
STRONG = colours("7a1e24 1c3e34 1e2846 e8ba3c ce5430 282828")
INKS = colours("18181a 3c221a 1a284a 283828 50161e")
CHALKS = colours("f0eee6 f6e296 fabeaa b4dcec bee6b4")
ACCENTS = colours("aa2428 966c28 24604c 224280 ce681e 60285a")


@dataclass(frozen=True)
class Style:
    """What all lines of a page have in common."""

    ground: Colour
    ink: Colour
    accent: Colour
    title: Typeface
    body: Typeface


def choose_colours(rng: np.random.Generator, papers) -> tuple[Colour, Colour, Colour]:
    """Return the colour of one of the papers, and an ink and an accent to read on it."""
    ground = vary(pick(rng, papers), rng, 6)
    if sum(ground) < 360:
        return ground, shade(pick(rng, CHALKS[:2]), 0.4), pick(rng, CHALKS)
    accent = shade(pick(rng, ACCENTS), -0.6 if sum(ground) < 600 else 0)
    return ground, vary(pick(rng, INKS), rng), accent


class Page(Canvas):
    """A page, or one of its columns, that is written from the top down.

    Lines lie between `left` and `right` and above `bottom`; `y` is the last line's baseline, and
    `size` the height of the letters, all in pixels.
    """

    def __init__(self, sheet: Size, style: Style, rng, size: float, margin: float = 0.08) -> None:
        super().__init__(paper(sheet, style.ground, rng), rng)
        self.style, self.size = style, size
        self.left, self.right = sheet[0] * margin, sheet[0] * (1 - margin)
        self.y, self.bottom = sheet[1] * 0.05, sheet[1] * 0.95

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    @property
    def body(self) -> Letters:
        """The letters of the text."""
        return letters(self.style.body, self.size)

    def has_space(self, num_lines: float) -> bool:
        """Return whether this many lines still fit."""
        return self.y + num_lines * self.size < self.bottom

    def columns(self, number: int, gap: float = 0) -> list["Page"]:
        """Return columns of equal width, `gap` pixels apart, that begin where this page is now."""
        width = (self.width - (number - 1) * gap) / number
        columns = [copy(self) for _ in range(number)]
        for index, column in enumerate(columns):
            column.left = self.left + index * (width + gap)
            column.right = column.left + width
        return columns

    def write(
        self,
        text: str,
        at: str | float = "left",
        *,
        drop: float = 1.4,
        scale: float = 1,
        style: str = "plain",
        colour: Colour | None = None,
        typeface: Typeface | None = None,
        width: float | None = None,
    ) -> float:
        """Write a line, in smaller letters if it would be wider than the column; return its width.

        `at`: `left`, `middle`, `right`, or a pixel; `drop`: how many letters' heights further down.
        """
        self.y += drop * self.size
        typeface = typeface or self.style.body
        font = letters(typeface, self.size * scale, style, text, width or self.width)
        x, anchor = (getattr(self, at), f"{at[0]}s") if isinstance(at, str) else (at, "ls")
        ink = colour or self.style.ink
        self.pen.text((x, self.y), font.spell(text), font=font.font, fill=ink, anchor=anchor)
        return font.width(text)

    def write_cells(self, texts: list[str], step: float) -> None:
        """Write short texts on the last line, in columns `step` pixels wide at its right edge."""
        for index, text in enumerate(reversed(texts)):
            self.write(text, self.right - index * step - self.body.width(text), drop=0)

    def write_paragraph(self, text: str, justified: bool = False) -> None:
        """Write lines until the text or the page ends; justified ones reach both edges."""
        body = self.body
        lines = body.wrap(text, self.width)
        for number, line in enumerate(lines):
            if not self.has_space(1.4):
                return
            self.y += 1.4 * self.size
            words = line.split() if justified and number < len(lines) - 1 else [line]
            gap = (self.width - sum(map(body.width, words))) / max(1, len(words) - 1)
            x = self.left
            for word in words:
                x += self.write(word, x, drop=0) + gap

    def draw_rule(self, colour: Colour, drop: float = 0.5, width: int = 1) -> None:
        """Draw a line from edge to edge."""
        self.y += drop * self.size
        self.pen.line([(self.left, self.y), (self.right, self.y)], colour, width)

    def draw_border(self, colour: Colour) -> None:
        """Draw a frame around the sheet, sometimes a double one or one with marked corners."""
        (width, height), inset = self.image.size, min(self.image.size) * 0.03
        for line in range(int(self.rng.integers(1, 3))):
            edge = inset + line * 8
            corners = [edge, edge, width - edge, height - edge]
            self.pen.rectangle(corners, outline=colour, width=int(self.rng.integers(1, 6)))
        for x in (inset, width - inset) if chance(self.rng, 0.4) else ():
            for y in (inset, height - inset):
                self.disc(x, y, inset * 0.8, colour)
