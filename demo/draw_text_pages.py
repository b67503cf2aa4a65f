"""Pages of text that are no menus: receipts, letters, newspapers, books, timetables, forms."""

import numpy as np
import words
from draw_scenes import paint_scene
from lettering import FIXED_WIDTH, READING
from pages import Page, Style
from PIL import Image
from surfaces import Size, chance, colours, mix, pick, vary

WHITES = colours("fdfcf9 ffffff f8f4ea f2ecde ece8dc")
TINTS = colours("faf0aa d6e6f4 fad6d8 d8ecd0 f0e2c4")
DARKS = colours("1e222c 182c54 282828 781e22 184638 ce5430 7a1e24")
INKS = colours("141416 26262c 1a2242 322822")
ACCENTS = colours("aa2428 224280 24604c 5a5a60 ce681e")
PALE = (246, 240, 226)


def blank_page(size: Size, rng, letter_size: float, typefaces=READING, dark_share=0.0) -> Page:
    """Return an empty page; its letters are `letter_size` of its height, and fit its width."""
    typeface = pick(rng, typefaces)
    if chance(rng, dark_share):
        style = Style(vary(pick(rng, DARKS), rng, 5), PALE, pick(rng, TINTS), typeface, typeface)
    else:
        ground = vary(pick(rng, WHITES if chance(rng, 0.75) else TINTS), rng, 5)
        ink = vary(pick(rng, INKS), rng, 8)
        style = Style(ground, ink, pick(rng, ACCENTS), typeface, typeface)
    return Page(size, style, rng, float(np.clip(size[1] * letter_size, 9, max(9, size[0] / 24))))


def prose(rng: np.random.Generator, fewest: int, most: int) -> str:
    """Return a paragraph of sentences in any order."""
    return " ".join(rng.permutation(words.SENTENCES)[: int(rng.integers(fewest, most))])


def paint_receipt(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a till receipt: narrow, typewriter letters, sums, thanks."""
    size = (min(size[0], round(size[1] * rng.uniform(0.38, 0.6))), size[1])
    page = blank_page(size, rng, size[0] / size[1] / rng.uniform(15, 21), FIXED_WIDTH)
    page.write(pick(rng, words.SHOPS), "middle", scale=1.7, style="bold")
    date = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.24"
    for line in (
        pick(rng, words.STREETS),
        pick(rng, words.TOWNS),
        f"{date} 14:{rng.integers(10, 60)}",
    ):
        page.write(line, "middle")
    goods = [(f"{rng.integers(1, 4)} {good}", rng.gamma(2, 3) + 0.3) for good in words.GOODS]
    goods = [goods[index] for index in rng.permutation(len(goods))[: int(rng.integers(4, 16))]]
    total = sum(price for _, price in goods)
    for label, price in (*goods, ("TOTAL", total), ("VAT 7 %", total * 0.07), ("CARD", total)):
        if label == "TOTAL":
            page.draw_rule(page.style.ink, drop=0.8)
        page.write(label[:16])
        page.write(f"{price:.2f}", "right", drop=0)
    page.write("THANK YOU", "middle", drop=2.2)
    for x in np.arange(page.left, page.right, page.size * 0.4):  # a bar code
        page.box(x, page.y + page.size, rng.integers(1, 5), page.size * 2, page.style.ink)
    return page.image


def paint_letter(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a letter: letterhead, addressee, date, salutation, paragraphs, signature."""
    page = blank_page(size, rng, rng.uniform(0.018, 0.028), (*READING, *FIXED_WIDTH))
    if chance(rng, 0.5):
        place = pick(rng, ("left", "middle", "right"))
        page.write(pick(rng, words.SHOPS), place, scale=1.8, style="bold", colour=page.style.accent)
        page.draw_rule(page.style.accent, width=2)
    for line in (pick(rng, words.NAMES), pick(rng, words.STREETS), pick(rng, words.TOWNS)):
        page.write(line)
    page.write(f"{pick(rng, words.TOWNS)}, {rng.integers(1, 29)} May", "right", drop=2)
    page.write(f"Dear {pick(rng, words.NAMES)},", drop=2)
    end = int(rng.integers(8, 20))
    while page.has_space(end):
        page.y += page.size * 0.7
        page.write_paragraph(prose(rng, 2, 5))
    page.write("Yours sincerely,", drop=2)
    _sign(page, page.left, page.y + page.size * 2)
    return page.image


def _sign(page: Page, x: float, y: float) -> None:
    steps, width = np.linspace(0, 1, 40), page.size * 5
    waves = np.sin(steps * page.rng.uniform(18, 40)) * 0.1
    waves += np.cumsum(page.rng.normal(0, 0.01, 40))
    points = np.stack([x + steps * width, y + waves * width], axis=1)
    page.pen.line(points.ravel().tolist(), (30, 40, 110), 2)


def paint_newspaper(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a newspaper's page: a name, headlines, justified columns, grey photographs."""
    page = blank_page(size, rng, 0.016)
    if chance(rng, 0.7):
        big = size[1] * 0.08 / page.size
        page.write(pick(rng, words.NEWSPAPERS), "middle", scale=big, style="bold", drop=big)
        page.draw_rule(page.style.ink, width=2)
    number = int(np.clip(round(size[0] / rng.uniform(130, 200)), 2, 5))
    for column in page.columns(number, page.size * 1.2):
        while column.has_space(9):
            width, height = round(column.width), round(column.width * 0.7)
            if chance(rng, 0.4) and column.y + height < column.bottom:  # a grey photograph
                photograph = paint_scene((width * 2, height * 2), rng).convert("L").reduce(2)
                column.image.paste(photograph, (round(column.left), round(column.y + column.size)))
                column.y += column.size + height
            scale = rng.uniform(1.2, 1.6)
            column.write(pick(rng, words.HEADLINES), scale=scale, style="bold", drop=2)
            column.write_paragraph(prose(rng, 4, 9), justified=True)
    return page.image


def paint_book(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint one or two pages of a book."""
    number = 2 if size[0] > size[1] else 1
    page = blank_page(size, rng, rng.uniform(0.02, 0.03))
    for column in page.columns(number, page.left * 2):
        if chance(rng, 0.4):
            column.write(pick(rng, words.CHAPTERS), "middle", scale=1.7, style="bold", drop=4)
            column.y += column.size
        while column.has_space(4):
            column.write_paragraph(prose(rng, 3, 9), justified=True)
        column.write(str(rng.integers(5, 400)), "middle", drop=2)
    for x in range(14 * (number - 1)):  # the shade where the pages meet
        colour = mix((120, 112, 100), page.style.ground, x / 14)
        for middle in (size[0] / 2 - x, size[0] / 2 + x):
            page.pen.line([(middle, 0), (middle, size[1])], colour, 1)
    return page.image


def paint_contents(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a book's table of contents: dotted lines too, but to page numbers."""
    page = blank_page(size, rng, rng.uniform(0.025, 0.036))
    page.write("Contents", scale=1.6, style="bold", drop=3)
    number, dot = int(rng.integers(1, 9)), pick(rng, ("", "."))
    while page.has_space(2):
        used = page.write(pick(rng, words.CHAPTERS), drop=1.8)
        dots = dot * int((page.width - used) / page.body.width(".") - 6)
        page.write(f"{dots}  {number}", "right", drop=0)
        number += int(rng.integers(2, 24))
    return page.image


def paint_timetable(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint stops and times in a grid, on paper or on a dark board."""
    page = blank_page(size, rng, rng.uniform(0.024, 0.036), dark_share=0.35)
    line = f"{pick(rng, ('Line', 'Bus', 'Train', 'Ferry', 'Tram'))} {rng.integers(1, 90)}"
    page.write(line, scale=2, style="bold", colour=page.style.accent, drop=2.5)
    step = page.body.width("00:00") + page.size * rng.uniform(0.5, 1.2)
    number = max(2, int((page.width - page.body.width("Stonebridge  ")) / step))
    has_bands, headway = chance(rng, 0.5), int(rng.integers(10, 60))
    minutes = np.cumsum(rng.integers(2, 12, len(words.TOWNS))) + int(rng.integers(300, 500))
    for stop, first in zip(rng.permutation(words.TOWNS), minutes, strict=True):
        if page.has_space(2):
            page.write(str(stop), drop=1.6)
            for column in range(number):
                hour, minute = divmod(first + column * headway, 60)
                x = page.right - (number - column) * step
                page.write(f"{hour % 24:02d}:{minute:02d}", x, drop=0)
            if has_bands:
                page.draw_rule(mix(page.style.ink, page.style.ground, 0.5), drop=0.3)
    return page.image


def paint_form(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a form: labels, with boxes or lines to fill in, some of them filled."""
    page = blank_page(size, rng, rng.uniform(0.02, 0.028))
    accent, in_boxes = page.style.accent, chance(rng, 0.5)
    page.box(page.left, page.y + page.size * 0.6, page.width, page.size * 2.8, accent)
    page.write(pick(rng, words.FORM_TITLES), "middle", scale=1.7, colour=PALE, drop=2.5)
    page.y += page.size
    number = 2 if size[0] > 420 and chance(rng, 0.6) else 1
    while page.has_space(6):
        for column in page.columns(number, page.size):
            column.write(pick(rng, words.FORM_FIELDS))
            top = column.y + column.size * (0.4 if in_boxes else 1.8)
            corners = [column.left, top, column.right, column.y + column.size * 1.8]
            page.pen.rectangle(corners, outline=page.style.ink)
            if chance(rng, 0.35):
                _sign(column, column.left + column.size, column.y + column.size)
        page.y += page.size * 3.6
    return page.image


def paint_notice(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a notice or a poster: few words, large, on any colour."""
    page = blank_page(size, rng, 0.026, dark_share=0.45)
    page.y = size[1] * rng.uniform(0.3, 0.45)
    scale, accent = size[1] * 0.2 / page.size, page.style.accent
    page.write(pick(rng, words.NOTICES), "middle", scale=scale, style="bold", colour=accent)
    page.write(pick(rng, words.NOTICE_LINES), "middle", scale=scale * 0.4, drop=4)
    page.y = max(page.y + page.size * 2, size[1] * 0.7)
    page.write_paragraph(prose(rng, 0, 5))
    if chance(rng, 0.5):
        page.draw_border(accent)
    return page.image


KINDS = (paint_letter, paint_newspaper, paint_book, paint_form, paint_notice, paint_contents)


def paint_text_page(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a page of any of these kinds; it may come out narrower than `size`, never larger."""
    return pick(rng, KINDS + (paint_receipt, paint_timetable) * 2)(size, rng)
