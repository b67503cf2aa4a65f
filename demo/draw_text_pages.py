"""Pages of text that are no menus: receipts, newspapers, books, timetables, forms."""

import numpy as np
import words
from draw_scenes import paint_scene
from lettering import FIXED_WIDTH, READING
from pages import PAPERS, STRONG, TINTS, Page, Style, choose_colours
from PIL import Image
from surfaces import Size, chance, mix, pick


def blank_page(size: Size, rng, share: float, typefaces=READING, papers=PAPERS * 2 + TINTS) -> Page:
    """Return an empty page; its letters are `share` of its height, and fit its width."""
    typeface = pick(rng, typefaces)
    style = Style(*choose_colours(rng, papers), typeface, typeface)
    return Page(size, style, rng, float(np.clip(size[1] * share, 9, max(9, size[0] / 24))))


def prose(rng: np.random.Generator, fewest: int, most: int) -> str:
    """Return a paragraph of sentences in any order."""
    return " ".join(rng.permutation(words.SENTENCES)[: int(rng.integers(fewest, most))])


def paint_receipt(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a till receipt: narrow, typewriter letters, sums, thanks."""
    size = (min(size[0], round(size[1] * rng.uniform(0.38, 0.6))), size[1])
    page = blank_page(size, rng, 0, FIXED_WIDTH, PAPERS)
    page.size, ink = size[0] / rng.uniform(15, 21), mix((30, 30, 36), (120, 120, 130), rng.random())
    page.write(pick(rng, words.SHOPS), "middle", scale=1.7, style="bold", colour=ink)
    for line in (pick(rng, words.STREETS), pick(rng, words.TOWNS), f"{rng.integers(10, 29)}.05.24"):
        page.write(line, "middle", colour=ink)
    goods = [(f"{rng.integers(1, 4)} {good}", rng.gamma(2, 3) + 0.3) for good in words.GOODS]
    goods = [goods[index] for index in rng.permutation(len(goods))[: int(rng.integers(4, 16))]]
    total = sum(price for _, price in goods)
    for label, price in (*goods, ("TOTAL", total), ("VAT 7 %", total * 0.07), ("CARD", total)):
        scale, style = (1.25, "bold") if label == "TOTAL" else (1, "plain")
        page.write(label[:16], drop=scale * 1.4, scale=scale, style=style, colour=ink)
        page.write(f"{price:.2f}", "right", drop=0, scale=scale, style=style, colour=ink)
    page.write("THANK YOU", "middle", drop=2.2, colour=ink)
    bars = np.arange(size[0] * 0.18, size[0] * 0.82, page.size * 0.4)
    for x in bars if chance(rng, 0.6) else ():
        page.box(x, page.y + page.size, rng.integers(1, 5), page.size * 2, ink)
    return page.image


def sign(page: Page) -> None:
    """Write a signature that nobody can read."""
    steps = np.linspace(0, 1, 40)
    waves = np.sin(steps * page.rng.uniform(18, 40)) * 0.5 + np.cumsum(page.rng.normal(0, 0.05, 40))
    points = np.stack([steps * 5, waves + 1.2], axis=1) * page.size + (page.left, page.y)
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
            column.write(pick(rng, words.HEADLINES), scale=1.4, style="bold", drop=2)
            column.write_paragraph(prose(rng, 4, 9), justified=True)
    return page.image


def paint_book(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint one or two pages of a book."""
    page = blank_page(size, rng, rng.uniform(0.02, 0.03))
    for column in page.columns(1 + (size[0] > size[1]), page.left * 2):
        if chance(rng, 0.4):
            column.write(pick(rng, words.CHAPTERS), "middle", scale=1.7, style="bold", drop=4)
            column.y += column.size
        while column.has_space(4):
            column.write_paragraph(prose(rng, 3, 9), justified=True)
        column.write(str(rng.integers(5, 400)), "middle", drop=2)
    for x in range(14 * (size[0] > size[1]), 0, -1):  # the shade where the pages meet
        colour = mix((120, 112, 100), page.style.ground, x / 14)
        page.box(size[0] / 2 - x, 0, 2 * x, size[1], colour)
    return page.image


def paint_timetable(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint stops and times in a grid, on paper or on a dark board."""
    page = blank_page(size, rng, rng.uniform(0.024, 0.036), papers=PAPERS * 2 + STRONG)
    line = f"{pick(rng, ('Line', 'Bus', 'Train', 'Ferry', 'Tram'))} {rng.integers(1, 90)}"
    page.write(line, scale=2, style="bold", colour=page.style.accent, drop=2.5)
    step = page.body.width("00:00") + page.size * rng.uniform(0.5, 1.2)
    number = max(2, int((page.width - page.body.width("Stonebridge  ")) / step))
    has_bands, headway = chance(rng, 0.5), int(rng.integers(10, 60))
    minutes = np.cumsum(rng.integers(2, 12, len(words.TOWNS))) + int(rng.integers(300, 500))
    for stop, first in zip(rng.permutation(words.TOWNS), minutes, strict=True):
        if page.has_space(2):
            page.write(str(stop), drop=1.6)
            times = [divmod(first + column * headway, 60) for column in range(number)]
            texts = [f"{hour % 24:02d}:{minute:02d}" for hour, minute in times]
            page.write_cells([text if chance(rng, 0.94) else "-" for text in texts], step)
            if has_bands:
                page.draw_rule(mix(page.style.ink, page.style.ground, 0.5), drop=0.3)
    return page.image


def paint_form(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a form: labels, with boxes or lines to fill in, some of them filled."""
    page = blank_page(size, rng, rng.uniform(0.02, 0.028))
    page.box(page.left, page.y + page.size * 0.6, page.width, page.size * 2.8, page.style.accent)
    page.write(pick(rng, words.FORM_TITLES), "middle", scale=2, colour=page.style.ground, drop=2.5)
    number, top = int(rng.integers(1, 2 + (size[0] > 420))), pick(rng, (0.4, 1.8))
    while page.has_space(6):
        page.y += page.size * 3.6
        for column in page.columns(number, page.size):
            column.write(pick(rng, words.FORM_FIELDS), drop=-1)
            low, high = column.y + column.size * np.array((top, 1.9))
            column.pen.rectangle([column.left, low, column.right, high], outline=page.style.ink)
            if chance(rng, 0.35):
                sign(column)
    return page.image


def paint_notice(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a notice or a poster: few words, large, on any colour."""
    page = blank_page(size, rng, 0.026, papers=PAPERS + TINTS + STRONG)
    page.y = size[1] * rng.uniform(0.3, 0.45)
    scale, accent = size[1] * 0.2 / page.size, page.style.accent
    page.write(pick(rng, words.NOTICES), "middle", scale=scale, style="bold", colour=accent)
    page.write(pick(rng, words.NOTICE_LINES), "middle", scale=scale * 0.4, drop=4)
    page.y = max(page.y + page.size * 2, size[1] * 0.7)
    page.write_paragraph(prose(rng, 0, 5))
    if chance(rng, 0.5):
        page.draw_border(accent)
    return page.image


KINDS = (paint_newspaper, paint_book, paint_form, paint_notice)


def paint_text_page(size: Size, rng: np.random.Generator) -> Image.Image:
    """Paint a page of any of these kinds; it may come out narrower than `size`, never larger."""
    return pick(rng, KINDS + (paint_receipt, paint_timetable) * 2)(size, rng)
