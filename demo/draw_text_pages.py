"""Pages of text that are no menus: receipts, letters, newspapers, books, timetables, forms."""

import numpy as np
import words
from lettering import (
    FIXED_WIDTH,
    READING,
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
from surfaces import Size, mix, paper, textured, vary

WHITES = ((253, 252, 249), (255, 255, 255), (248, 244, 234), (242, 236, 222), (236, 232, 220))
TINTS = ((250, 240, 170), (214, 230, 244), (250, 214, 216), (216, 236, 208), (240, 226, 196))
DARKS = (
    (30, 34, 44),
    (24, 44, 84),
    (40, 40, 40),
    (120, 30, 34),
    (24, 70, 56),
    (206, 84, 48),
    (122, 30, 36),
)
INKS = ((20, 20, 22), (38, 38, 44), (26, 34, 66), (50, 40, 34))
ACCENTS = ((170, 36, 40), (34, 66, 128), (36, 96, 76), (90, 90, 96), (206, 104, 30))


def blank_page(size: Size, rng: np.random.Generator) -> tuple[Image.Image, Pen, Colour]:
    """A light sheet, its pen, and an ink."""
    ground = vary(pick(rng, WHITES if chance(rng, 0.75) else TINTS), rng, 5)
    sheet = paper(size, ground, rng)
    return sheet, ImageDraw.Draw(sheet), vary(pick(rng, INKS), rng, 8)


def prose(rng: np.random.Generator, num_sentences: int) -> str:
    """A paragraph of sentences in any order."""
    return " ".join(rng.permutation(words.SENTENCES)[:num_sentences])


def full_name(rng: np.random.Generator) -> str:
    """A first and a last name."""
    return f"{pick(rng, words.FIRST_NAMES)} {pick(rng, words.LAST_NAMES)}"


def clock_time(minutes: int) -> str:
    """Minutes after midnight as 08:05."""
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def write_lines(
    pen: Pen, left: float, y: float, lines: list[str], body: Letters, ink: Colour
) -> float:
    """Write lines under each other; returns the y of the next line's top."""
    for line in lines:
        y += body.size * 1.4
        body.write(pen, (left, y), line, ink)
    return y


def write_justified(
    pen: Pen, left: float, y: float, lines: list[str], width: float, body: Letters, ink: Colour
) -> float:
    """Write lines that reach both edges, the last one excepted."""
    for line in lines[:-1]:
        y += body.size * 1.35
        parts = line.split()
        lengths = [body.width(part) for part in parts]
        gap = (width - sum(lengths)) / max(1, len(parts) - 1)
        x = left
        for part, length in zip(parts, lengths, strict=True):
            body.write(pen, (x, y), part, ink)
            x += length + gap
    return write_lines(pen, left, y, lines[-1:], body, ink)


def paint_receipt(size: Size, rng: np.random.Generator) -> Image.Image:
    """A till receipt: narrow, typewriter letters, sums, thanks."""
    size = (min(size[0], round(size[1] * rng.uniform(0.38, 0.6))), size[1])
    sheet = paper(size, vary((250, 249, 246), rng, 5), rng)
    pen, ink = ImageDraw.Draw(sheet), mix((30, 30, 36), (120, 120, 130), float(rng.random()))
    typeface = pick(rng, FIXED_WIDTH)
    body = letters(typeface, size[0] / rng.uniform(15, 21))
    left, right, y = size[0] * 0.07, size[0] * 0.93, size[1] * 0.04
    y = _write_receipt_head(pen, size, y, body, typeface, ink, rng)
    prices = [round(float(rng.gamma(2, 3)) + 0.3, 2) for _ in range(int(rng.integers(4, 16)))]
    for price in prices:
        if y > size[1] * 0.72:
            break
        y += body.size * 1.35
        body.write(pen, (left, y), f"{rng.integers(1, 4)} {pick(rng, words.GOODS)}"[:16], ink)
        body.write(pen, (right, y), f"{price:.2f}", ink, "rs")
    y = _write_receipt_sums(pen, (left, right), y, sum(prices), typeface, body, ink)
    _write_receipt_foot(pen, size, y, body, ink, rng)
    return sheet


def _write_receipt_head(
    pen: Pen, size: Size, y: float, body: Letters, typeface: Typeface, ink: Colour, rng
) -> float:
    shop = pick(rng, words.SHOPS)
    big = largest_letters(typeface, shop, size[0] * 0.84, body.size * 1.7, "bold")
    y += big.size
    big.write(pen, (size[0] / 2, y), shop, ink, "ms")
    address = f"{rng.integers(1, 99)} {pick(rng, words.STREETS)}"
    time = clock_time(int(rng.integers(480, 1200)))
    stamp = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.24 {time}"
    for line in (address, pick(rng, words.TOWNS), stamp):
        y += body.size * 1.35
        body.write(pen, (size[0] / 2, y), line, ink, "ms")
    return y + body.size * 0.8


def _write_receipt_sums(
    pen: Pen,
    edges: tuple[float, float],
    y: float,
    total: float,
    typeface: Typeface,
    body: Letters,
    ink: Colour,
) -> float:
    left, right = edges
    y += body.size
    dashes = "-" * int((right - left) / body.width("-"))
    body.write(pen, (left, y), dashes, ink)
    bold = letters(typeface, body.size * 1.25, "bold")
    rows = ((bold, "TOTAL", total), (body, "VAT 7 %", total * 0.07), (body, "CARD", total))
    for row_letters, label, amount in rows:
        y += row_letters.size * 1.45
        row_letters.write(pen, (left, y), label, ink)
        row_letters.write(pen, (right, y), f"{amount:.2f}", ink, "rs")
    return y


def _write_receipt_foot(pen: Pen, size: Size, y: float, body: Letters, ink: Colour, rng) -> None:
    y += body.size * 2.2
    if y + body.size * 3 > size[1]:
        return
    body.write(pen, (size[0] / 2, y), "THANK YOU", ink, "ms")
    y += body.size * 0.8
    if chance(rng, 0.6):
        x = size[0] * 0.18
        while x < size[0] * 0.82:
            width = int(rng.integers(1, 5))
            pen.rectangle([x, y, x + width, min(size[1] * 0.97, y + body.size * 3)], fill=ink)
            x += width + int(rng.integers(2, 5))


def paint_letter(size: Size, rng: np.random.Generator) -> Image.Image:
    """A letter: sender, date, salutation, paragraphs, signature."""
    sheet, pen, ink = blank_page(size, rng)
    typeface = pick(rng, (*READING, *FIXED_WIDTH))
    body = letters(typeface, np.clip(size[1] * rng.uniform(0.018, 0.028), 9, size[0] / 26))
    left, width = size[0] * rng.uniform(0.09, 0.14), size[0] * 0.76
    y = size[1] * 0.05
    if chance(rng, 0.5):
        y = _write_letterhead(pen, size, y, body, typeface, rng)
    address = [
        full_name(rng),
        f"{rng.integers(1, 99)} {pick(rng, words.STREETS)}",
        pick(rng, words.TOWNS),
    ]
    y = write_lines(pen, left, y, address, body, ink) + body.size * 1.6
    body.write(
        pen, (left + width, y), f"{pick(rng, words.TOWNS)}, {rng.integers(1, 29)} May", ink, "rs"
    )
    y = write_lines(pen, left, y, [f"Dear {full_name(rng)},"], body, ink) + body.size * 0.6
    last = size[1] * rng.uniform(0.6, 0.82)
    while y + body.size * 7 < last:
        lines = body.wrap(prose(rng, int(rng.integers(2, 5))), width)
        y = write_lines(pen, left, y, lines, body, ink) + body.size * 0.8
    y = write_lines(pen, left, y, ["Yours sincerely,"], body, ink)
    _sign(pen, left, y + body.size * 2, body.size * 5, rng)
    return sheet


def _write_letterhead(
    pen: Pen, size: Size, y: float, body: Letters, typeface: Typeface, rng
) -> float:
    accent = pick(rng, ACCENTS)
    big = letters(typeface, body.size * 1.8, "bold")
    x, anchor = pick(rng, ((size[0] * 0.1, "ls"), (size[0] * 0.5, "ms"), (size[0] * 0.9, "rs")))
    big.write(
        pen,
        (x, y + big.size),
        f"{pick(rng, words.LAST_NAMES)} & {pick(rng, words.LAST_NAMES)}",
        accent,
        anchor,
    )
    pen.line([(size[0] * 0.1, y + big.size * 1.6), (size[0] * 0.9, y + big.size * 1.6)], accent, 2)
    return y + big.size * 2


def _sign(pen: Pen, x: float, y: float, width: float, rng: np.random.Generator) -> None:
    steps = np.linspace(0, 1, 40)
    waves = np.cumsum(rng.normal(0, 1, 40))
    heights = np.sin(steps * rng.uniform(18, 40)) * width * 0.1 + waves * width * 0.01
    points = list(zip(x + steps * width, y + heights, strict=True))
    pen.line(points, (30, 40, 110), 2)


def paint_newspaper(size: Size, rng: np.random.Generator) -> Image.Image:
    """A newspaper's page: a name, headlines, justified columns, a grey photograph."""
    sheet, pen, ink = blank_page(size, rng)
    typeface = pick(rng, READING)
    name = pick(rng, words.NEWSPAPERS)
    margin = size[0] * 0.05
    y = size[1] * 0.03
    if chance(rng, 0.7):
        big = largest_letters(typeface, name, size[0] * 0.86, size[1] * 0.09, "bold")
        y += big.size
        big.write(pen, (size[0] / 2, y), name, ink, "ms")
        y += big.size * 0.35
        pen.line([(margin, y), (size[0] - margin, y)], ink, 2)
    number = int(np.clip(round(size[0] / rng.uniform(130, 200)), 2, 5))
    body = letters(typeface, np.clip(size[1] * 0.018, 9, 13))
    gap = body.size * 1.2
    width = (size[0] - 2 * margin - (number - 1) * gap) / number
    for index in range(number):
        _fill_news_column(
            pen, margin + index * (width + gap), y, width, size[1] * 0.96, body, typeface, ink, rng
        )
    return sheet


def _fill_news_column(
    pen: Pen,
    left: float,
    y: float,
    width: float,
    bottom: float,
    body: Letters,
    typeface: Typeface,
    ink: Colour,
    rng,
) -> None:
    while y + body.size * 9 < bottom:
        if chance(rng, 0.4) and y + width < bottom:
            y = _draw_press_photo(pen, left, y + body.size, width, rng)
        headline = letters(typeface, body.size * rng.uniform(1.3, 2), "bold")
        for line in headline.wrap(pick(rng, words.HEADLINES), width):
            y += headline.size * 1.15
            headline.write(pen, (left, y), line, ink)
        lines = body.wrap(prose(rng, int(rng.integers(4, 9))), width)
        room = int((bottom - y) / (body.size * 1.35))
        y = write_justified(pen, left, y, lines[: max(1, room)], width, body, ink) + body.size


def _draw_press_photo(pen: Pen, left: float, y: float, width: float, rng) -> float:
    height = width * rng.uniform(0.55, 0.8)
    sky = int(rng.integers(150, 220))
    pen.rectangle([left, y, left + width, y + height], fill=(sky, sky, sky))
    for _ in range(6):
        grey = int(rng.integers(30, 150))
        x, top = left + width * rng.uniform(0, 0.8), y + height * rng.uniform(0.25, 0.7)
        pen.rectangle(
            [x, top, x + width * rng.uniform(0.08, 0.2), y + height], fill=(grey, grey, grey)
        )
    return y + height


def paint_book(size: Size, rng: np.random.Generator) -> Image.Image:
    """One or two pages of a book."""
    sheet, pen, ink = blank_page(size, rng)
    typeface = pick(rng, READING)
    number = 2 if size[0] > size[1] else 1
    width = size[0] / number
    body = letters(typeface, np.clip(size[1] * rng.uniform(0.02, 0.03), 9, width / 24))
    for index in range(number):
        _write_book_page(pen, index * width, (width, size[1]), body, typeface, ink, rng)
    if number == 2:
        for step in range(14):  # the shade where the pages meet
            shade = mix((120, 112, 100), sheet.getpixel((4, 4)), step / 14)
            for x in (width - step, width + step):
                pen.line([(x, 0), (x, size[1])], shade, 1)
    return sheet


def _write_book_page(
    pen: Pen, left: float, page: tuple[float, float], body: Letters, typeface, ink: Colour, rng
) -> None:
    margin, y = page[0] * 0.12, page[1] * 0.06
    x, width = left + margin, page[0] - 2 * margin
    if chance(rng, 0.4):
        title = letters(typeface, body.size * 1.7, "bold")
        y += title.size * 2.5
        title.write(pen, (left + page[0] / 2, y), pick(rng, words.CHAPTERS), ink, "ms")
        y += title.size
    while True:
        room = int((page[1] * 0.92 - y) / (body.size * 1.35))
        if room < 2:
            break
        lines = body.wrap(prose(rng, int(rng.integers(3, 9))), width)[:room]
        y = write_justified(pen, x, y, lines, width, body, ink)
    body.write(pen, (left + page[0] / 2, page[1] * 0.965), str(rng.integers(5, 400)), ink, "ms")


def paint_contents(size: Size, rng: np.random.Generator) -> Image.Image:
    """A book's table of contents: dotted lines too, but to page numbers."""
    sheet, pen, ink = blank_page(size, rng)
    typeface = pick(rng, READING)
    body = letters(typeface, np.clip(size[1] * rng.uniform(0.025, 0.036), 9, size[0] / 24))
    left, right, y = size[0] * 0.14, size[0] * 0.86, size[1] * 0.1
    letters(typeface, body.size * 1.6, "bold").write(pen, (left, y), "Contents", ink)
    y, page = y + body.size, int(rng.integers(1, 9))
    has_dots = chance(rng, 0.6)
    for number in range(1, 40):
        y += body.size * 1.8
        if y > size[1] * 0.94:
            break
        entry = f"{number}  {pick(rng, words.CHAPTERS)}"
        body.write(pen, (left, y), entry, ink)
        dots = "." * int((right - left - body.width(entry) - body.size * 2.4) / body.width("."))
        body.write(pen, (right - body.size * 2, y), dots if has_dots else "", ink, "rs")
        body.write(pen, (right, y), str(page), ink, "rs")
        page += int(rng.integers(2, 24))
    return sheet


def paint_timetable(size: Size, rng: np.random.Generator) -> Image.Image:
    """Stops and times in a grid, on paper or on a dark board."""
    is_board = chance(rng, 0.35)
    ground = vary(pick(rng, DARKS if is_board else WHITES), rng, 5)
    sheet = textured(size, ground, 4, (8, 8), rng)
    pen, ink = ImageDraw.Draw(sheet), ((244, 238, 214) if is_board else vary(pick(rng, INKS), rng))
    accent = pick(rng, ((250, 210, 90), (250, 250, 246)) if is_board else ACCENTS)
    typeface = pick(rng, READING)
    body = letters(typeface, np.clip(size[1] * rng.uniform(0.024, 0.036), 9, size[0] / 24))
    y = size[1] * 0.05 + body.size * 2
    title = f"{pick(rng, ('Line', 'Bus', 'Train', 'Ferry', 'Tram'))} {rng.integers(1, 90)}"
    letters(typeface, body.size * 2, "bold").write(pen, (size[0] * 0.05, y), title, accent)
    _write_times(pen, size, y + body.size, body, ink, accent, rng)
    return sheet


def _write_times(
    pen: Pen, size: Size, y: float, body: Letters, ink: Colour, accent: Colour, rng
) -> None:
    left, right = size[0] * 0.05, size[0] * 0.95
    first = left + body.width("Applewood Town")
    step = body.width("00:00") + body.size * rng.uniform(0.5, 1.2)
    number = max(2, int((right - first) / step))
    has_bands, shade = chance(rng, 0.5), mix(ink, accent, 0.5)
    start, headway = int(rng.integers(300, 500)), int(rng.integers(10, 60))
    for row, stop in enumerate(rng.permutation(words.TOWNS)):
        if y + body.size * 2 > size[1] * 0.95:
            break
        if has_bands:
            pen.line([(left, y + body.size * 0.1), (right, y + body.size * 0.1)], shade, 1)
        y += body.size * 1.6
        body.write(pen, (left, y - body.size * 0.3), str(stop), ink)
        start += int(rng.integers(2, 12))
        for column in range(number):
            text = clock_time(start + column * headway) if chance(rng, 0.94) else "–"
            body.write(
                pen,
                (first + (column + 1) * step, y - body.size * 0.3),
                text,
                accent if row == 0 else ink,
                "rs",
            )


def paint_form(size: Size, rng: np.random.Generator) -> Image.Image:
    """A form: labels, boxes or lines to fill in, choices to tick."""
    sheet, pen, ink = blank_page(size, rng)
    accent, typeface = pick(rng, ACCENTS), pick(rng, READING)
    body = letters(typeface, np.clip(size[1] * rng.uniform(0.02, 0.028), 9, size[0] / 30))
    left, right = size[0] * 0.07, size[0] * 0.93
    y = size[1] * 0.05 + body.size * 2
    title = pick(rng, words.FORM_TITLES)
    has_band = chance(rng, 0.5)
    if has_band:
        pen.rectangle([left, y - body.size * 2, right, y + body.size * 0.8], fill=accent)
    heading = letters(typeface, body.size * 1.7, "bold")
    heading.write(pen, (left + body.size, y), title, (250, 250, 248) if has_band else accent)
    y += body.size * 2
    number = 2 if size[0] > 420 and chance(rng, 0.6) else 1
    in_boxes = chance(rng, 0.5)
    fields = list(rng.permutation(words.FORM_FIELDS))
    while fields and y + body.size * 5 < size[1] * 0.96:
        width = (right - left - (number - 1) * body.size) / number
        for column in range(min(number, len(fields))):
            x = left + column * (width + body.size)
            _draw_field(pen, x, y, width, str(fields.pop()), body, in_boxes, ink, rng)
        y += body.size * 3.6
        if chance(rng, 0.25):
            y = _draw_choices(pen, left, y, body, ink, rng)
    return sheet


def _draw_field(
    pen: Pen, x: float, y: float, width: float, label: str, body: Letters, in_boxes: bool, ink, rng
) -> None:
    body.write(pen, (x, y + body.size), label, ink)
    top, bottom = y + body.size * 1.4, y + body.size * 3
    if in_boxes:
        pen.rectangle([x, top, x + width, bottom], outline=ink)
    else:
        pen.line([(x, bottom), (x + width, bottom)], ink, 1)
    if chance(rng, 0.35):
        _sign(pen, x + width * 0.05, (top + bottom) / 2, min(width * 0.6, body.size * 7), rng)


def _draw_choices(pen: Pen, x: float, y: float, body: Letters, ink: Colour, rng) -> float:
    for choice in rng.permutation(words.FORM_CHOICES)[:3]:
        box = [x, y, x + body.size, y + body.size]
        pen.rectangle(box, outline=ink)
        if chance(rng, 0.4):
            pen.line([(box[0], box[1]), (box[2], box[3])], ink, 2)
            pen.line([(box[0], box[3]), (box[2], box[1])], ink, 2)
        body.write(pen, (x + body.size * 1.4, y + body.size * 0.9), str(choice), ink)
        x += body.size * 2.8 + body.width(str(choice))
    return y + body.size * 2


def paint_notice(size: Size, rng: np.random.Generator) -> Image.Image:
    """A notice or a poster: few words, large, on any colour."""
    is_dark = chance(rng, 0.45)
    ground = vary(pick(rng, DARKS if is_dark else WHITES + TINTS), rng)
    sheet = textured(size, ground, 4, (9, 9), rng)
    pen = ImageDraw.Draw(sheet)
    ink = (246, 240, 226) if is_dark else pick(rng, ACCENTS)
    typeface = pick(rng, READING)
    words_above, words_below = pick(rng, words.NOTICES)
    big = largest_letters(typeface, words_above, size[0] * 0.84, size[1] * 0.3, "bold")
    y = size[1] * rng.uniform(0.3, 0.45)
    big.write(pen, (size[0] / 2, y), words_above, ink, "ms")
    small = largest_letters(typeface, words_below, size[0] * 0.7, big.size * 0.5)
    small.write(pen, (size[0] / 2, y + big.size * 0.9), words_below, ink, "ms")
    fine = letters(typeface, max(10, size[1] * 0.026))
    y = max(size[1] * 0.7, y + big.size * 1.9)
    room = max(0, int((size[1] * 0.94 - y) / (fine.size * 1.4)))
    for line in fine.wrap(prose(rng, int(rng.integers(0, 5))), size[0] * 0.76)[:room]:
        fine.write(pen, (size[0] / 2, y), line, ink, "ms")
        y += fine.size * 1.4
    if chance(rng, 0.5):
        inset = min(size) * 0.04
        pen.rectangle(
            [inset, inset, size[0] - inset, size[1] - inset],
            outline=ink,
            width=int(rng.integers(2, 9)),
        )
    return sheet


TEXT_PAINTERS = (
    paint_receipt,
    paint_receipt,
    paint_letter,
    paint_newspaper,
    paint_book,
    paint_contents,
    paint_timetable,
    paint_timetable,
    paint_form,
    paint_notice,
)


def paint_text_page(size: Size, rng: np.random.Generator) -> Image.Image:
    """A page of any of these kinds; it may come out narrower than `size`, never larger."""
    return pick(rng, TEXT_PAINTERS)(size, rng)
