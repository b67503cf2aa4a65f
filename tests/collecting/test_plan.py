"""A plan says what each class wants; whatever is wrong in it is named with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest
from filling import split

from imagesieve.class_folders import to_class_name
from imagesieve.collecting.bing.queries import Query, SearchOptions
from imagesieve.collecting.options import _distinct
from imagesieve.collecting.plan import read_plan
from imagesieve.collecting.targets import Side, Target, neighbours
from imagesieve.errors import UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "menu-or-not.toml"

QUERIES = 'queries = ["a"]'
TRAIN, VALIDATION = Path("data/train"), Path("data/validation")

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> Path:
        path = Path("plan.toml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def words(target: Target) -> list[str]:
    return [query.text for query in target.queries]


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_plan(path)
    return str(caught.value)


def sizes(target: Target) -> tuple[int, int]:
    return target.train.limit, target.validation.limit if target.validation else 0


def test_the_shipped_example_fills_four_folders(tmp_path: Path) -> None:
    menu, other = read_plan(EXAMPLE, tmp_path)
    assert (menu.name, other.name) == ("menu", "not-menu")
    assert [side for target in (menu, other) for side in target.sides] == [
        Side(tmp_path / "train" / "menu", 240),
        Side(tmp_path / "validation" / "menu", 60),
        Side(tmp_path / "train" / "not-menu", 240),
        Side(tmp_path / "validation" / "not-menu", 60),
    ]
    assert min(len(menu.queries), len(other.queries)) >= 5
    assert not set(words(menu)) & set(words(other))
    options = {query.options for target in (menu, other) for query in target.queries}
    assert options == {SearchOptions(type="photo")}


def test_a_plan_is_read_in_the_order_of_its_classes(write: Write) -> None:
    path = write(
        """
        output = "images"
        limit = 300
        validation_fraction = 0.2
        type = "photo"
        market = "de-AT"
        [class.menu]
        queries = ["restaurant menu", " cafe  menu board "]
        [class.not-menu]
        queries = ["restaurant interior"]
        limit = 500
        validation_queries = ["street cafe"]
        validation_limit = 100
        size = "larger-than:640x480"
        type = ""
        """
    )
    photo = SearchOptions(type="photo", market="de-AT")
    large = SearchOptions(size="larger-than:640x480", market="de-AT")
    train, validation = Path("images/train"), Path("images/validation")
    menus = (Query("restaurant menu", photo), Query("cafe menu board", photo))
    name, street = "not-menu (validation)", (Query("street cafe", large),)
    assert read_plan(path) == [
        Target("menu", menus, Side(train / "menu", 240), Side(validation / "menu", 60)),
        Target("not-menu", (Query("restaurant interior", large),), Side(train / "not-menu", 400)),
        Target(name, street, Side(validation / "not-menu", 100)),
    ]


def test_the_smallest_plan_fills_training_folders_only(write: Write) -> None:
    (target,) = read_plan(write(f"\ufeff[class.a]\r\n{QUERIES}\r\n"))
    assert target == Target("a", (Query("a"),), Side(TRAIN / "a", 100))


def test_the_output_argument_wins_and_a_home_folder_is_found(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(f'output = "~/set"\n[class.a]\n{QUERIES}')
    assert read_plan(path)[0].train.folder == tmp_path / "set" / "train" / "a"
    assert read_plan(path, Path("other"))[0].train.folder == Path("other/train/a")


@pytest.mark.parametrize(
    ("top", "own", "expected"),
    [
        ("", "limit = 7", (7, 0)),
        ("", "train_limit = 7", (7, 0)),
        ("", "train_limit = 7\nvalidation_limit = 3", (7, 3)),
        ("", "limit = 7\nvalidation_limit = 3", (4, 3)),
        ("", "validation_limit = 3", (97, 3)),
        ("", "validation_fraction = 0.25", (75, 25)),
        ("limit = 10", "validation_fraction = 0.01", (9, 1)),
        ("limit = 2", "validation_fraction = 0.99", (1, 1)),
        ("limit = 300\nvalidation_fraction = 0.2", "", (240, 60)),
        ("limit = 300\nvalidation_fraction = 0.2", "limit = 10", (8, 2)),
        ("limit = 300\nvalidation_fraction = 0.2", "validation_limit = 1", (299, 1)),
        ("limit = 300\nvalidation_fraction = 0.2", "train_limit = 9\nvalidation_limit = 1", (9, 1)),
        ("train_limit = 9\nvalidation_limit = 1", "limit = 5", (4, 1)),
        ("train_limit = 9\nvalidation_limit = 1", "limit = 5\nvalidation_fraction = 0.4", (3, 2)),
        ("train_limit = 9\nvalidation_limit = 1", "validation_limit = 4", (9, 4)),
    ],
)
def test_sizes_of_a_class_win_over_those_at_the_top(
    write: Write, top: str, own: str, expected: tuple[int, int]
) -> None:
    (target,) = read_plan(write(f"{top}\n[class.a]\n{QUERIES}\n{own}"))
    assert sizes(target) == expected


CONTRADICTIONS = [
    ("limit = 9\ntrain_limit = 9", "", "limit and train_limit contradict each other"),
    ("", "validation_limit = 3\nvalidation_fraction = 0.2", "and validation_fraction contradict"),
    ("validation_fraction = 0.2", "train_limit = 9", "does not go with train_limit: write"),
    ("limit = 50", "validation_limit = 50", "limit = 50 is too few: validation takes"),
    ("", "validation_limit = 100", "limit = 100 is too few"),
    ("limit = 1", "validation_fraction = 0.5", "limit = 1 is too few"),
    ("", 'validation_queries = ["b"]', "validation_queries needs a validation_limit"),
    ("validation_limit = 3", 'validation_queries = ["b", "a "]', "'a' is in queries and in valid"),
]


@pytest.mark.parametrize(("top", "own", "sentence"), CONTRADICTIONS)
def test_contradictions_are_refused(write: Write, top: str, own: str, sentence: str) -> None:
    message = refusal(write(f"{top}\n[class.x]\n{QUERIES}\n{own}"))
    assert message.startswith("plan.toml, class 'x': " if own else "plan.toml: ")
    assert sentence in message


WRONG_LINES = [
    ("limit = 0", "limit = 0: expected `int` >= 1"),
    ("limit = -3", "limit = -3: expected `int` >= 1"),
    ("limit = 3.0", "limit = 3.0: expected `int`"),
    ("limit = true", "limit = True: expected `int`"),
    ('limit = "300"', "limit = '300': expected `int`"),
    (f"limit = 1{'0' * 400}", "limit = 1000000000"),
    ("train_limit = []", "train_limit = []: expected `int`"),
    ("validation_limit = nan", "validation_limit = nan: expected `int`"),
    ("validation_fraction = 0", "validation_fraction = 0: expected `float` > 0.0"),
    ("validation_fraction = 0.0", "validation_fraction = 0.0: expected `float` > 0.0"),
    ("validation_fraction = 1.0", "validation_fraction = 1.0: expected `float` < 1.0"),
    ("validation_fraction = nan", "validation_fraction = nan: expected `float` > 0.0"),
    ("validation_fraction = inf", "validation_fraction = inf: expected `float` < 1.0"),
    ('validation_fraction = "20%"', "validation_fraction = '20%': expected `float`"),
    ("size = 640", "size = 640: expected `str`"),
    ('size = "huge"', "size 'huge' is not one of: small, medium"),
    ('safe_search = "none"', "safe_search 'none' is not one of: strict, moderate, off"),
    ('market = "english"', "market 'english' is not a language and a country"),
    ("limt = 3", "unknown key 'limt': limit is the nearest one"),
    ("safe-search = 'off'", "unknown key 'safe-search': safe_search is the nearest"),
    ("Validation-Limit = 3", "unknown key 'Validation-Limit': validation_limit is the nearest"),
    ("colour = 'red'", "unknown key 'colour': color is the nearest"),
    ("xyzzy = 3", "unknown key 'xyzzy': the keys are "),
]


@pytest.mark.parametrize(("line", "sentence"), WRONG_LINES)
@pytest.mark.parametrize("place", ["plan.toml: ", "plan.toml, class 'x': "])
def test_wrong_values_and_unknown_keys_are_named_with_their_place(
    write: Write, line: str, sentence: str, place: str
) -> None:
    table = f"[class.x]\n{QUERIES}\n"
    text = f"{table}{line}" if "class" in place else f"{line}\n{table}"
    message = refusal(write(text))
    assert message.startswith(place + sentence)
    assert len(message) < 200 or "the keys are" in message


WRONG_PLANS = [
    ("", "plan.toml: there is no class: write [class.NAME]"),
    ("limit = 3", "plan.toml: there is no class"),
    ("[class]", "plan.toml: there is no class"),
    ("class = 3", "plan.toml: class = 3: expected `object`"),
    (f"[classes.x]\n{QUERIES}", "plan.toml: unknown key 'classes': class is the nearest"),
    (f"[[class]]\n{QUERIES}", "plan.toml: class = [{'queries': ['a']}]: expected `object`"),
    (QUERIES, "plan.toml: queries belongs to a class: write it in [class.NAME]"),
    ('[class]\nx = ["a"]', "plan.toml, class 'x': it is not a table: write [class.x]"),
    ("[class.x]", "plan.toml, class 'x': it has no queries"),
    (f'output = " "\n[class.x]\n{QUERIES}', "plan.toml: output = ' ' is not the name of a"),
    ('[class.x]\nqueries = "a"', "class 'x': queries = 'a': expected `array`"),
    ("[class.x]\nqueries = []", "class 'x': queries = []: expected `array` of length >= 1"),
    ('[class.x]\nqueries = [" "]', "class 'x': The search words are empty"),
    ('[class.x]\nqueries = ["a", 3]', "class 'x': queries = ['a', 3]: expected `str`"),
    ('[class.x]\nqueries = ["a\\u0000"]', "class 'x': The search words 'a\\x00' are not text"),
    ('[class.x]\nqueries = ["a b", "a  b"]', "class 'x': queries has 'a b' more than once"),
    (f'[class.x]\n{QUERIES}\noutput = "d"', "class 'x': output belongs at the top"),
    (f"[class.x.y]\n{QUERIES}", "class 'x': unknown key 'y'"),
    (f'output = ""\n[class.x]\n{QUERIES}', "plan.toml: output = '': expected `str` of length >= 1"),
    (f"output = 3\n[class.x]\n{QUERIES}", "plan.toml: output = 3: expected `str`"),
    (f'output = "~no-one/x"\n[class.x]\n{QUERIES}', "plan.toml: output = '~no-one/x': "),
    (f"[class.Menu]\n{QUERIES}\n[class.menu]\n{QUERIES}", "it differs from 'Menu' only in case"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_PLANS)
def test_a_plan_that_makes_no_sense_is_refused(write: Write, text: str, sentence: str) -> None:
    message = refusal(write(text))
    assert sentence in message
    assert "plan.toml" in message


@pytest.mark.parametrize(
    "name",
    ["a/b", "food truck", "..", ".hidden", "a ", "CON", "nul.txt", "a:b", "", "x" * 300, "e\u0301"],
)
def test_a_name_that_is_no_folder_name_is_refused_with_one_that_is(write: Write, name: str) -> None:
    usable = to_class_name(name)
    assert f"{usable!r} would do" in refusal(write(f'[class."{name}"]\n{QUERIES}'))
    (target,) = read_plan(write(f'[class."{usable}"]\n{QUERIES}'))
    assert (target.name, target.train.folder) == (usable, TRAIN / usable)


NO_TOML = [
    (b"limit = 3\n[class.x\n", r"not valid TOML: Expected ']' .* \(at line 2, column 9\)"),
    (b"limit = 3\nlimit = 4", r"Cannot overwrite a value \(at line 2, column 10\)"),
    (b"[class.x]\n[class.x]", r"\(at line 2, column 9\)"),
    (b"limit = 1" + b"0" * 5000, "not valid TOML"),
    (b"limit = " + b"[" * 100_000, "nests its values too deeply"),
    ("# crème\nqueries = ['é".encode() + b"\xff']", r"not UTF-8 text \(at line 2, column 14\)"),
    ("\ufeffé".encode() + b"\xff", r"not UTF-8 text \(at line 1, column 2\)"),
    ("[class.x]".encode("utf-16"), r"not UTF-8 text \(at line 1, column 1\)"),
    (b"#" * (2**20 + 1), "has more than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("data", "sentence"), NO_TOML)
def test_what_is_no_toml_is_refused_with_line_and_column(
    write: Write, data: bytes, sentence: str
) -> None:
    with pytest.raises(UsageError, match=rf"^plan\.toml .*{sentence}"):
        read_plan(write(data))
    for name in ("none.toml", ".", "a\0b"):
        with pytest.raises(UsageError, match=r"The plan .* cannot be read"):
            read_plan(Path(name))


@pytest.mark.parametrize(
    ("limit", "fraction", "num_validation"),
    [(10, 0.2, 2), (300, 0.2, 60), (2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2), (100, 0.333, 33)],
)
def test_a_limit_is_shared_out(
    tmp_path: Path, limit: int, fraction: float, num_validation: int
) -> None:
    target = split(tmp_path, limit, fraction)
    assert target.sides == (
        Side(tmp_path / "train" / "x", limit - num_validation),
        Side(tmp_path / "validation" / "x", num_validation),
    )
    assert target.limit == limit
    assert target.validation_fraction == num_validation / limit


def test_neighbours_are_the_other_classes_of_every_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["train/a", "train/b", "validation/a", "test/c", "other/d", "train/.trash"]
    for place in places:
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "train" / "file.txt").touch()
    expected = [tmp_path / place for place in ("train/b", "validation/a", "test/c")]
    assert neighbours(tmp_path / "train" / "a") == expected
    assert neighbours(tmp_path / "other" / "d") == []
    assert neighbours(tmp_path / "train") == []
    monkeypatch.chdir(tmp_path / "train" / "a")
    assert neighbours(Path()) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a?b"),
        ("Menu", "menu"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("red panda", "red_panda"),
        ("x" * 151, "x" * 152),
        ("CON", "_con"),
    ],
)
def test_queries_that_would_share_a_folder_are_refused_by_name(one: str, other: str) -> None:
    assert _distinct(["b", one, "b", "c", one]) == ["b", one, "c"]
    with pytest.raises(UsageError) as caught:
        _distinct(["first", one, other])
    assert f"{one!r} and {other!r} would share the folder" in str(caught.value)
