"""Menus: columns of dishes and prices in many layouts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import words
from draw_food import draw_glass, draw_plate
from lettering import MONO, READING, SERIF, SLANTED, TIMES
from pages import ACCENTS, CHALKS, INKS, PAPERS, Page, Style
from PIL import Image, ImageOps
from surfaces import Size, chance, colours, mix, pick, shade, vary, wood

COLOURED = colours("7a1e24 1c3e34 1e2846 e8ba3c ce5430 f4d6ce")
BOARDS = colours("222426 1e3028 2c2624 181a22")

PRICES = words.split("""{:.2f} €; € {:.2f}; {:.2f}; {:.2f}; ${:.2f}; ${:.0f}; £{:.2f}; {:.0f};
    {:.1f}; {:.0f},-; {:.0f}0 kr; CHF {:.2f}; ¥{:.0f}00""")
GLASSES = (["0.2 l", "0.4 l"], ["small", "large"], ["glass", "bottle"], ["0.1", "0.2", "0.75"])


@dataclass(frozen=True)
class MenuStyle(Style):
    """What all lines of one menu have in common."""

    price: str  # a format
    leader: str  # repeated between dish and price; "" for none
    price_on_left: bool
    has_descriptions: bool
    in_capitals: bool
    is_drinks: bool


def choose_style(rng: np.random.Generator, is_drinks: bool = False) -> MenuStyle:
    """Return a style whose ink can be read on its paper."""
    ground = vary(pick(rng, PAPERS if chance(rng, 0.72) else COLOURED), rng, 6)
    if sum(ground) < 360:
        ink, accent = shade(pick(rng, CHALKS[:2]), 0.4), pick(rng, CHALKS)
    else:
        ink, accent = vary(pick(rng, INKS), rng), pick(rng, ACCENTS)
        accent = shade(accent, -0.6) if sum(ground) < 600 else accent
    body = pick(rng, READING)
    return MenuStyle(
        ground=ground,
        ink=ink,
        accent=accent,
        title=pick(rng, (body, SERIF, TIMES, SLANTED, *READING)),
        body=body,
        price=pick(rng, PRICES),
        leader=pick(rng, (".", ".", " .", "", "", "", "_ ", "-")),
        price_on_left=chance(rng, 0.12),
        has_descriptions=not is_drinks and chance(rng, 0.5),
        in_capitals=chance(rng, 0.2),
        is_drinks=is_drinks,
    )


def menu_sections(page: Page) -> Iterator[tuple[str, list[str]]]:
    """Yield headings with their dishes in menu order, again and again until the page is full."""
    source = words.DRINKS if page.style.is_drinks else words.DISHES
    headings = np.roll(list(source), int(page.rng.integers(3)))
    while True:
        for heading in map(str, headings):
            dishes = [str(dish) for dish in page.rng.permutation(source[heading])]
            yield heading, dishes[: int(page.rng.integers(4, 12))]


def invent_price(page: Page) -> str:
    """Return a price as this menu writes it."""
    price = page.rng.uniform(1.5, 9) if page.style.is_drinks else page.rng.uniform(4, 32)
    return page.style.price.format(round(price * 2) / 2 - pick(page.rng, (0, 0, 0.1, 0.05)))


def begin(sheet: Size, style: MenuStyle, rng, size: float, margin=0.08, border=0.0) -> Page:
    """Return a page with the house's name on it; `border` is the chance of a frame."""
    page = Page(sheet, style, rng, min(sheet) * rng.uniform(0.06, 0.12), margin)
    if chance(rng, border):
        page.draw_border(style.accent)
    titles = words.DRINK_TITLES if style.is_drinks else words.MENU_TITLES
    text = str(pick(rng, titles if chance(rng, 0.5) else words.HOUSES))
    look = {"style": pick(rng, ("plain", "bold")), "colour": style.accent, "typeface": style.title}
    page.write(text, "middle" if chance(rng, 0.75) else "left", drop=1.1, **look)
    if chance(rng, 0.45):
        page.write(pick(rng, words.MENU_NOTES), "middle", scale=0.36, style="italic", drop=0.6)
    if chance(rng, 0.6):
        page.draw_rule(style.accent, width=int(rng.integers(1, 3)))
    page.y += page.size * 0.4
    page.size = float(np.clip(size, 9, 30))
    return page


def write_sections(column: Page, is_centred: bool = False) -> None:
    """Fill a column with headings and dishes."""
    needed = (3.6 if column.style.has_descriptions else 1.6) + is_centred
    for heading, dishes in menu_sections(column):
        if not column.has_space(5):
            return
        write_heading(column, heading, is_centred)
        for dish in dishes:
            if column.has_space(needed):
                _write_dish(column, dish, invent_price(column), is_centred)
        column.y += column.size * 1.1


def write_heading(column: Page, heading: str, is_centred: bool = False) -> None:
    """Write a section's name, with space below it."""
    text = heading.upper() if column.style.in_capitals else heading
    look = {"style": "bold", "colour": column.style.accent, "typeface": column.style.title}
    column.write(text, "middle" if is_centred else "left", scale=1.4, **look)
    column.y += column.size * 0.3


def _write_dish(column: Page, dish: str, price: str, is_centred: bool) -> None:
    style, body = column.style, column.body
    text = dish.upper() if style.in_capitals else dish
    column.y += column.size * 1.55
    if is_centred:
        column.write(text, "middle", style="bold", drop=0)
        _describe(column, "middle", column.width)
        column.write(price, "middle", colour=style.accent, drop=1.15, scale=0.95)
        return
    space = column.size * 0.8
    cost = body.width(price)
    room = column.width - cost - space
    start = column.left + (cost + space) * style.price_on_left
    used = column.write(text, start, drop=0, width=room)
    column.write(price, "left" if style.price_on_left else "right", drop=0)
    if style.leader and not style.price_on_left:
        leader = style.leader * int((room - used) / body.width(style.leader))
        column.write(leader, column.right - cost - space / 2 - body.width(leader), drop=0)
    _describe(column, start, room * 0.9)


def _describe(column: Page, at: str | float, width: float) -> None:
    if column.style.has_descriptions:
        chosen = column.rng.permutation(words.INGREDIENTS)[: int(column.rng.integers(2, 5))]
        pale = mix(column.style.ink, column.style.ground, 0.25)
        look = {"scale": 0.78, "style": "italic", "colour": pale, "width": width}
        column.write(", ".join(chosen), at, drop=0.95, **look)


def paint_list(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint the usual menu: one to three columns, dishes on the left, prices on the right."""
    style = choose_style(rng, is_drinks=chance(rng, 0.25))
    most = max(1, min(3, size[0] // 230))
    number = int(rng.integers(1 if size[0] < size[1] * 1.15 else min(2, most), most + 1))
    letter_size = min(size[1] * rng.uniform(0.018, 0.04), size[0] / number / 17)
    margin = rng.uniform(0.1, 0.18) if number == 1 else rng.uniform(0.06, 0.09)
    page = begin(size, style, rng, letter_size, margin, border=0.35)
    gap = size[0] * margin * 0.9
    has_lines, is_centred = chance(rng, 0.3), number == 1 and chance(rng, 0.2)
    for index, column in enumerate(page.columns(number, gap)):
        if index and has_lines:
            x = column.left - gap / 2
            page.pen.line([(x, column.y), (x, column.bottom)], style.accent, 1)
        if index and chance(rng, 0.25):
            radius = min(column.width * 0.3, (column.bottom - column.y) * 0.14)
            draw = draw_glass if style.is_drinks else draw_plate
            draw(column, column.middle, column.y + radius * 1.1, radius)
            column.y += radius * 2.5
        write_sections(column, is_centred)
    return page.image


def paint_card(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a finer house's card, centred, or a take-away's list, as narrow as a receipt."""
    is_fine, style = chance(rng, 0.7), choose_style(rng)
    ratio = rng.uniform(0.5, 0.8) if is_fine else rng.uniform(0.4, 0.55)
    size = (min(size[0], round(size[1] * ratio)), size[1])
    if not is_fine:
        style = replace(style, body=pick(rng, (MONO, *READING)), has_descriptions=False)
    letter_size = min(size[1] * rng.uniform(0.018, 0.04), size[0] / 17)
    page = begin(size, style, rng, letter_size, margin=0.1, border=0.6 if is_fine else 0)
    write_sections(page, is_centred=is_fine)
    return page.image


def paint_board(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a chalkboard, often in a wooden frame: few lines, large letters."""
    ground, ink = vary(pick(rng, BOARDS), rng, 6), shade(pick(rng, CHALKS[:2]), 0.3)
    style = choose_style(rng, is_drinks=chance(rng, 0.35))
    style = replace(style, ground=ground, ink=ink, accent=pick(rng, CHALKS), has_descriptions=False)
    number = 2 if size[0] > size[1] * 1.2 else 1
    letter_size = min(size[1] * rng.uniform(0.04, 0.06), size[0] / number / 15)
    page = begin(size, style, rng, letter_size, margin=0.1)
    for column in page.columns(number, size[0] * 0.09):
        write_sections(column)
    if chance(rng, 0.3):
        return page.image
    border, frame = round(min(size) * rng.uniform(0.025, 0.05)), wood(size, rng)
    frame.paste(ImageOps.crop(page.image, border), (border, border))
    return frame


def paint_image_menu(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a snack bar's menu: a grid of plates, each with a name and a price."""
    style, number = choose_style(rng), max(2, round(size[0] / rng.uniform(150, 230)))
    page = begin(size, style, rng, size[0] / number * 0.1, margin=0.03)
    names = 3 * rng.permutation(words.DISHES["Mains"] + words.DISHES["Pizza"]).tolist()
    down = max(2, round((size[1] - page.y) / (page.width / number * rng.uniform(1.0, 1.25))))
    height = (size[1] * 0.97 - page.y) / down
    page.size = min(page.size, height * 0.12)
    for column in page.columns(number, page.size):
        radius = min(column.width * 0.42, (height - column.size * 3.2) / 2)
        for row in range(down):
            column.y = page.y + row * height + radius * 2.15
            draw_plate(column, column.middle, column.y - radius * 1.1, radius)
            column.write(names.pop(), "middle", style="bold", drop=1)
            column.write(invent_price(column), "middle", colour=style.accent, drop=1.25)
    return page.image


def paint_drinks_table(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a price list for drinks: a price for each size of glass."""
    style, glasses = choose_style(rng, is_drinks=True), pick(rng, GLASSES)
    letter_size = min(size[1] * rng.uniform(0.026, 0.04), size[0] / 22)
    page = begin(size, style, rng, letter_size, margin=rng.uniform(0.06, 0.12))
    step = page.body.width(style.price.format(20.5)) + page.size * 1.5
    sections = menu_sections(page)
    while page.has_space(5):
        heading, drinks = next(sections)
        write_heading(page, heading)
        page.write_cells(glasses, step)
        page.draw_rule(style.accent)
        for drink in drinks:
            if page.has_space(1.7):
                page.write(drink, drop=1.55, width=page.width - len(glasses) * step)
                page.write_cells([invent_price(page) for _ in glasses], step)
        page.y += page.size
    return page.image


MENUS = (*[paint_list] * 9, *[paint_card] * 4, *[paint_board] * 3, *[paint_image_menu] * 2)
MENUS += (paint_drinks_table, paint_drinks_table)


def paint_menu(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a menu of any layout; it may come out narrower than `size`, never larger."""
    return pick(rng, MENUS)(size, rng)
