"""Menus: columns of dishes and prices in many layouts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import words
from draw_food import draw_glass, draw_plate
from lettering import (
    MONO,
    READING,
    SERIF,
    SLANTED,
    TIMES,
    Colour,
    Letters,
    Typeface,
    chance,
    largest_letters,
    letters,
    pick,
)
from PIL import Image, ImageDraw
from shapes import Pen
from surfaces import Size, brightness, mix, paper, textured, vary, wood

Section = tuple[str, list[str]]  # a heading and its dishes

PAPERS = (
    (252, 251, 247),
    (255, 255, 255),
    (246, 238, 220),
    (238, 226, 200),
    (232, 238, 232),
    (240, 236, 240),
)
COLOURED = (
    (122, 30, 36),
    (28, 62, 52),
    (30, 40, 70),
    (232, 186, 60),
    (206, 84, 48),
    (244, 214, 206),
)
BOARDS = ((34, 36, 38), (30, 48, 40), (44, 38, 36), (24, 26, 34))
INKS = ((24, 24, 26), (60, 34, 26), (26, 40, 74), (40, 56, 40), (80, 22, 30))
CHALKS = ((240, 238, 230), (246, 226, 150), (250, 190, 170), (180, 220, 236), (190, 230, 180))
ACCENTS = ((170, 36, 40), (150, 108, 40), (36, 96, 76), (34, 66, 128), (206, 104, 30), (96, 40, 90))

PRICE_FORMATS: tuple[Callable[[float], str], ...] = (
    lambda price: f"{price:.2f} €",
    lambda price: f"€ {price:.2f}",
    lambda price: f"{price:.2f} €".replace(".", ","),
    lambda price: f"{price:.2f}".replace(".", ","),
    lambda price: f"${price:.2f}",
    lambda price: f"${price:.0f}",
    lambda price: f"£{price:.2f}",
    lambda price: f"{price:.2f}",
    lambda price: f"{price:.0f}",
    lambda price: f"{price:.1f}",
    lambda price: f"{price:.0f},-",
    lambda price: f"{price * 10:.0f} kr",
    lambda price: f"CHF {price:.2f}",
    lambda price: f"¥{price * 100:.0f}",
)


@dataclass(frozen=True)
class Style:
    """What all lines of one menu have in common."""

    paper: Colour
    ink: Colour
    accent: Colour
    title: Typeface
    body: Typeface
    price: Callable[[float], str]
    leader: str  # repeated between dish and price; "" for none
    price_on_left: bool
    has_descriptions: bool
    in_capitals: bool
    cheap: bool  # drinks and snacks cost less


def draw_style(rng: np.random.Generator, is_drinks: bool) -> Style:
    """A style whose ink can be read on its paper."""
    ground = vary(pick(rng, PAPERS if chance(rng, 0.72) else COLOURED), rng, 6)
    is_dark = brightness(ground) < 120
    ink = (
        mix(pick(rng, CHALKS[:2]), (255, 255, 255), 0.4) if is_dark else vary(pick(rng, INKS), rng)
    )
    accent = pick(rng, CHALKS) if is_dark else pick(rng, ACCENTS)
    if not is_dark and brightness(ground) < 200:
        accent = mix(accent, (0, 0, 0), 0.6)
    body = pick(rng, READING)
    return Style(
        paper=ground,
        ink=ink,
        accent=accent,
        title=pick(rng, (body, SERIF, TIMES, SLANTED, *READING)),
        body=body,
        price=pick(rng, PRICE_FORMATS),
        leader=pick(rng, (".", ".", " .", "", "", "", "_ ", "-")),
        price_on_left=chance(rng, 0.12),
        has_descriptions=not is_drinks and chance(rng, 0.5),
        in_capitals=chance(rng, 0.2),
        cheap=is_drinks,
    )


def menu_sections(rng: np.random.Generator, is_drinks: bool) -> Iterator[Section]:
    """Headings with their dishes in menu order, again and again until the page is full."""
    source = words.DRINKS if is_drinks else words.DISHES
    skipped = int(rng.integers(3))
    headings = [*list(source)[skipped:], *list(source)[:skipped]]
    while True:
        for heading in headings:
            dishes = [str(dish) for dish in rng.permutation(source[heading])]
            yield heading, dishes[: int(rng.integers(4, 12))]


def invent_price(style: Style, rng: np.random.Generator) -> str:
    """A price as this house writes it."""
    price = rng.uniform(1.5, 9) if style.cheap else rng.uniform(4, 32)
    return style.price(round(price * 2) / 2 - pick(rng, (0, 0, 0.1, 0.05)))


def describe(rng: np.random.Generator) -> str:
    """What is on the plate, in two to five words or so."""
    return ", ".join(rng.permutation(words.INGREDIENTS)[: int(rng.integers(2, 5))])


def draw_rule(pen: Pen, left: float, right: float, y: float, colour: Colour, rng) -> None:
    """A dividing line: plain, double, dotted or with a diamond."""
    kind, middle = int(rng.integers(4)), (left + right) / 2
    if kind == 2:
        for x in range(round(left), round(right), 8):
            pen.ellipse([x, y - 1, x + 2, y + 1], fill=colour)
        return
    pen.line([(left, y), (right, y)], colour, 1 if kind else 2)
    if kind == 1:
        pen.line([(left, y + 4), (right, y + 4)], colour, 1)
    if kind == 3:
        pen.polygon([(middle - 7, y), (middle, y - 5), (middle + 7, y), (middle, y + 5)], colour)


def draw_border(pen: Pen, size: Size, colour: Colour, rng) -> None:
    """A frame of one or two lines, sometimes with marked corners."""
    inset = round(min(size) * rng.uniform(0.015, 0.04))
    width = int(rng.integers(1, 6))
    pen.rectangle([inset, inset, size[0] - inset, size[1] - inset], outline=colour, width=width)
    if chance(rng, 0.5):
        second = inset + width + 4
        pen.rectangle([second, second, size[0] - second, size[1] - second], outline=colour)
    if chance(rng, 0.4):
        radius = inset * 0.8
        for x in (inset, size[0] - inset):
            for y in (inset, size[1] - inset):
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def draw_title(pen: Pen, size: Size, style: Style, text: str, rng) -> float:
    """Write the house's name over the page; returns the y below it."""
    width, height = size
    wanted = min(width, height) * rng.uniform(0.06, 0.12)
    big = largest_letters(style.title, text, width * 0.8, wanted, pick(rng, ("plain", "bold")))
    margin = max(height * 0.05, min(size) * 0.06)
    y = margin + big.size
    if chance(rng, 0.75):
        big.write(pen, (width / 2, y), text, style.accent, "ms")
    else:
        big.write(pen, (width * 0.08, y), text, style.accent)
    y += big.size * 0.55
    if chance(rng, 0.45):
        small = letters(style.body, big.size * 0.36, "italic")
        small.write(
            pen, (width / 2, y + small.size * 0.5), pick(rng, words.MENU_NOTES), style.ink, "ms"
        )
        y += small.size * 1.3
    if chance(rng, 0.6):
        draw_rule(pen, width * 0.2, width * 0.8, y, style.accent, rng)
        y += big.size * 0.2
    return y + big.size * 0.2


def title_text(rng: np.random.Generator, is_drinks: bool) -> str:
    """A house's name or a plain "Menu"."""
    titles = words.DRINK_TITLES if is_drinks else words.MENU_TITLES
    return str(pick(rng, titles if chance(rng, 0.5) else words.HOUSES))


@dataclass
class Column:
    """A column that is filled from the top; `y` is the next line's top."""

    pen: Pen
    left: float
    right: float
    y: float
    bottom: float
    style: Style
    size: float  # of the letters
    rng: np.random.Generator
    is_centred: bool = False

    @property
    def width(self) -> float:
        return self.right - self.left

    def is_full(self) -> bool:
        """Whether another dish would leave the page."""
        needed = 3.6 if self.style.has_descriptions else 1.6
        return self.y + self.size * needed > self.bottom

    def fill(self, sections: Iterator[Section]) -> None:
        """Write sections until the column is full."""
        while self.y + self.size * 5 < self.bottom:
            heading, dishes = next(sections)
            self.write_heading(heading)
            for dish in dishes:
                if self.is_full():
                    return
                self.write_dish(dish)
            self.y += self.size * 1.1

    def write_heading(self, heading: str) -> None:
        """A section's name, with space around it."""
        text = heading.upper() if self.style.in_capitals else heading
        big = largest_letters(self.style.title, text, self.width, self.size * 1.4, "bold")
        self.y += big.size
        if self.is_centred:
            big.write(
                self.pen, ((self.left + self.right) / 2, self.y), text, self.style.accent, "ms"
            )
        else:
            big.write(self.pen, (self.left, self.y), text, self.style.accent)
        self.y += self.size * 0.75

    def write_dish(self, dish: str) -> None:
        """A dish, its price and, where the menu has them, its description."""
        text = dish.upper() if self.style.in_capitals else dish
        price = invent_price(self.style, self.rng)
        self.y += self.size
        if self.is_centred:
            self._write_centred(text, price)
        else:
            self._write_line(text, price)
        self.y += self.size * 0.55

    def _write_line(self, text: str, price: str) -> None:
        style, pen, y = self.style, self.pen, self.y
        cost = letters(style.body, self.size)
        space = self.size * 0.4
        room = self.width - cost.width(price) - 2 * space
        name = largest_letters(style.body, text, room, self.size)
        if style.price_on_left:
            cost.write(pen, (self.left, y), price, style.accent)
            start = self.left + cost.width(style.price(28.5)) + 2 * space
        else:
            cost.write(pen, (self.right, y), price, style.ink, "rs")
            start = self.left
            gap = room - name.width(text)
            leader = style.leader * int(gap / max(1, cost.width(style.leader or " ")))
            cost.write(pen, (self.right - cost.width(price) - space, y), leader, style.ink, "rs")
        name.write(pen, (start, y), text, style.ink)
        if style.has_descriptions:
            self._write_description(start, "ls", room * 0.9)

    def _write_centred(self, text: str, price: str) -> None:
        middle = (self.left + self.right) / 2
        name = largest_letters(self.style.body, text, self.width, self.size, "bold")
        name.write(self.pen, (middle, self.y), text, self.style.ink, "ms")
        if self.style.has_descriptions:
            self._write_description(middle, "ms", self.width)
        self.y += self.size * 1.15
        letters(self.style.body, self.size * 0.95).write(
            self.pen, (middle, self.y), price, self.style.accent, "ms"
        )
        self.y += self.size * 0.3

    def _write_description(self, x: float, anchor: str, width: float) -> None:
        small = letters(self.style.body, self.size * 0.78, "italic")
        for line in small.wrap(describe(self.rng), width)[:2]:
            self.y += small.size * 1.2
            small.write(
                self.pen, (x, self.y), line, mix(self.style.ink, self.style.paper, 0.25), anchor
            )


def column_edges(size: Size, number: int, margin: float) -> list[tuple[float, float]]:
    """Left and right of each column."""
    gap = margin * 0.9
    width = (size[0] - 2 * margin - (number - 1) * gap) / number
    return [
        (margin + index * (width + gap), margin + index * (width + gap) + width)
        for index in range(number)
    ]


def choose_letter_size(size: Size, num_columns: int, rng: np.random.Generator) -> float:
    """Large enough to read, small enough for a dish and its price on a line."""
    widest = size[0] / num_columns / 17
    return float(np.clip(size[1] * rng.uniform(0.018, 0.04), 9, max(9.5, min(widest, 30))))


def choose_num_columns(size: Size, rng: np.random.Generator) -> int:
    """One to three columns, as many as the sheet is wide."""
    most = max(1, min(3, size[0] // 230))
    return int(rng.integers(1 if size[0] < size[1] * 1.15 else min(2, most), most + 1))


def paint_list(size: Size, rng: np.random.Generator) -> Image.Image:
    """The usual menu: one to three columns, dishes on the left, prices on the right."""
    is_drinks = chance(rng, 0.25)
    style = draw_style(rng, is_drinks)
    sheet = paper(size, style.paper, rng)
    pen = ImageDraw.Draw(sheet)
    if chance(rng, 0.35):
        draw_border(pen, size, style.accent, rng)
    top = draw_title(pen, size, style, title_text(rng, is_drinks), rng)
    _fill_page(pen, size, top, style, menu_sections(rng, is_drinks), rng)
    return sheet


def _fill_page(pen: Pen, size: Size, top: float, style: Style, sections, rng) -> None:
    number = choose_num_columns(size, rng)
    letter_size = choose_letter_size(size, number, rng)
    margin = size[0] * (rng.uniform(0.1, 0.18) if number == 1 else rng.uniform(0.06, 0.09))
    bottom = size[1] * 0.94
    edges = column_edges(size, number, margin)
    has_lines = number > 1 and chance(rng, 0.3)
    is_centred = number == 1 and chance(rng, 0.2)
    for index, (left, right) in enumerate(edges):
        column = Column(pen, left, right, top, bottom, style, letter_size, rng, is_centred)
        if index and chance(rng, 0.25):
            _draw_small_image(column)
        column.fill(sections)
        if has_lines and index:
            x = left - margin * 0.45
            pen.line([(x, top), (x, bottom)], style.accent, 1)


def _draw_small_image(column: Column) -> None:
    radius = min(column.width * 0.3, (column.bottom - column.y) * 0.14)
    middle = (column.left + column.right) / 2
    draw = draw_glass if column.style.cheap else draw_plate
    draw(column.pen, middle, column.y + radius * 1.1, radius, column.rng)
    column.y += radius * 2.5


def paint_card(size: Size, rng: np.random.Generator) -> Image.Image:
    """A card of a finer house: few dishes, centred, much space."""
    width = min(size[0], round(size[1] * rng.uniform(0.5, 0.8)))
    size = (width, size[1])
    style = draw_style(rng, is_drinks=False)
    sheet = paper(size, style.paper, rng)
    pen = ImageDraw.Draw(sheet)
    if chance(rng, 0.6):
        draw_border(pen, size, style.accent, rng)
    top = draw_title(pen, size, style, title_text(rng, False), rng)
    letter_size = choose_letter_size(size, 1, rng)
    edges = (width * 0.12, width * 0.88)
    column = Column(pen, *edges, top, size[1] * 0.93, style, letter_size, rng, is_centred=True)
    column.fill(menu_sections(rng, False))
    return sheet


def paint_board(size: Size, rng: np.random.Generator) -> Image.Image:
    """A chalkboard in a wooden frame: few lines, large letters."""
    is_drinks = chance(rng, 0.35)
    chalk = mix(pick(rng, CHALKS[:2]), (255, 255, 255), 0.3)
    style = replace(
        draw_style(rng, is_drinks),
        paper=vary(pick(rng, BOARDS), rng, 6),
        ink=chalk,
        accent=pick(rng, CHALKS),
        has_descriptions=False,
    )
    board = textured(size, style.paper, 14, (7, 7), rng)
    pen = ImageDraw.Draw(board)
    top = draw_title(pen, size, style, title_text(rng, is_drinks), rng)
    number = 2 if size[0] > size[1] * 1.2 else 1
    letter_size = float(np.clip(size[1] * rng.uniform(0.04, 0.06), 12, size[0] / number / 15))
    for left, right in column_edges(size, number, size[0] * 0.1):
        column = Column(pen, left, right, top, size[1] * 0.92, style, letter_size, rng)
        column.fill(menu_sections(rng, is_drinks))
    return _hang_in_wood(board, rng) if chance(rng, 0.7) else board


def _hang_in_wood(board: Image.Image, rng: np.random.Generator) -> Image.Image:
    frame = wood(board.size, rng)
    border = round(min(board.size) * rng.uniform(0.025, 0.05))
    inner = board.resize(
        (board.width - 2 * border, board.height - 2 * border), Image.Resampling.BICUBIC
    )
    frame.paste(inner, (border, border))
    return frame


def paint_image_menu(size: Size, rng: np.random.Generator) -> Image.Image:
    """A snack bar's menu: a grid of images, each with a name and a price."""
    style = draw_style(rng, is_drinks=False)
    sheet = paper(size, style.paper, rng)
    pen = ImageDraw.Draw(sheet)
    top = draw_title(pen, size, style, title_text(rng, False), rng)
    across = max(2, round(size[0] / rng.uniform(150, 230)))
    down = max(2, round((size[1] - top) / (size[0] / across * rng.uniform(1.0, 1.25))))
    cell = (size[0] * 0.94 / across, (size[1] * 0.97 - top) / down)
    _, dishes = next(menu_sections(rng, False))
    names = list(rng.permutation(words.DISHES["Mains"] + words.DISHES["Pizza"] + tuple(dishes)))
    for index in range(across * down):
        left = size[0] * 0.03 + index % across * cell[0]
        _draw_tile(
            pen,
            (left, top + index // across * cell[1]),
            cell,
            str(names[index % len(names)]),
            style,
            rng,
        )
    return sheet


def _draw_tile(
    pen: Pen, corner: tuple[float, float], cell: tuple[float, float], name: str, style: Style, rng
) -> None:
    width, height = cell
    x, y = corner[0] + width / 2, corner[1]
    size = min(width * 0.11, height * 0.12)
    radius = min(width * 0.38, (height - size * 3.2) / 2)
    draw_plate(pen, x, y + radius * 1.05, radius, rng)
    label = largest_letters(style.body, name, width * 0.92, size, "bold")
    label.write(pen, (x, y + radius * 2.15 + size), name, style.ink, "ms")
    price = invent_price(style, rng)
    cost = letters(style.body, size * 1.1, "bold")
    cost.write(pen, (x, y + radius * 2.15 + size * 2.25), price, style.accent, "ms")


def paint_drinks_table(size: Size, rng: np.random.Generator) -> Image.Image:
    """A price list for drinks: a price for each size of glass."""
    style = draw_style(rng, is_drinks=True)
    sheet = paper(size, style.paper, rng)
    pen = ImageDraw.Draw(sheet)
    top = draw_title(pen, size, style, title_text(rng, True), rng)
    margin = size[0] * rng.uniform(0.06, 0.12)
    body = letters(style.body, np.clip(size[1] * rng.uniform(0.026, 0.04), 10, size[0] / 22))
    glasses = pick(
        rng, (("0.2 l", "0.4 l"), ("small", "large"), ("glass", "bottle"), ("0.1", "0.2", "0.75"))
    )
    step = max(body.width(style.price(20.5)), body.width(glasses[0])) + body.size
    sections, y = menu_sections(rng, True), top
    while y + body.size * 5 < size[1] * 0.95:
        heading, drinks = next(sections)
        y = _write_table_head(pen, size[0] - margin, margin, y, heading, glasses, step, body, style)
        for drink in drinks:
            if y + body.size * 1.7 > size[1] * 0.95:
                break
            y += body.size * 1.55
            _write_table_row(
                pen, size[0] - margin, margin, y, drink, len(glasses), step, body, style, rng
            )
        y += body.size
    return sheet


def _write_table_head(
    pen: Pen,
    right: float,
    left: float,
    y: float,
    heading: str,
    glasses,
    step: float,
    body: Letters,
    style: Style,
) -> float:
    y += body.size * 1.5
    letters(style.title, body.size * 1.25, "bold").write(pen, (left, y), heading, style.accent)
    for index, glass in enumerate(reversed(glasses)):
        body.write(pen, (right - index * step, y), glass, style.accent, "rs")
    pen.line([(left, y + body.size * 0.45), (right, y + body.size * 0.45)], style.accent, 1)
    return y + body.size * 0.3


def _write_table_row(
    pen: Pen,
    right: float,
    left: float,
    y: float,
    drink: str,
    number: int,
    step: float,
    body: Letters,
    style: Style,
    rng,
) -> None:
    room = right - left - number * step
    largest_letters(style.body, drink, room, body.size).write(pen, (left, y), drink, style.ink)
    for index in range(number):
        body.write(pen, (right - index * step, y), invent_price(style, rng), style.ink, "rs")


def paint_price_strip(size: Size, rng: np.random.Generator) -> Image.Image:
    """A take-away's narrow list in a plain typeface, as long as a receipt."""
    size = (min(size[0], round(size[1] * rng.uniform(0.4, 0.55))), size[1])
    style = replace(
        draw_style(rng, is_drinks=False),
        paper=vary(pick(rng, PAPERS), rng, 5),
        ink=vary(pick(rng, INKS), rng),
        accent=pick(rng, ACCENTS),
        body=pick(rng, (MONO, *READING)),
        has_descriptions=False,
    )
    sheet = paper(size, style.paper, rng)
    pen = ImageDraw.Draw(sheet)
    top = draw_title(pen, size, style, title_text(rng, False), rng)
    letter_size = float(np.clip(size[1] * 0.026, 9, size[0] / 16))
    edges = (size[0] * 0.08, size[0] * 0.92)
    Column(pen, *edges, top, size[1] * 0.95, style, letter_size, rng).fill(
        menu_sections(rng, False)
    )
    return sheet


MENU_PAINTERS = {
    paint_list: 0.44,
    paint_card: 0.14,
    paint_board: 0.16,
    paint_image_menu: 0.1,
    paint_drinks_table: 0.1,
    paint_price_strip: 0.06,
}


def paint_menu(size: Size, rng: np.random.Generator) -> Image.Image:
    """A menu of any layout; it may come out narrower than `size`, never larger."""
    painters, shares = list(MENU_PAINTERS), list(MENU_PAINTERS.values())
    return painters[int(rng.choice(len(painters), p=shares))](size, rng)
