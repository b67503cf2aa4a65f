import argparse
from pathlib import Path

import pytest

from imagesieve.console import argument_parser
from imagesieve.errors import UsageError
from imagesieve.learning import options


def parse(*arguments: str) -> argparse.Namespace:
    parser = argument_parser("Train.", "")
    options.add_options(parser, epochs=20, learning_rate=1e-3, rate_help="")
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "0"),
        ("--fine-tune-epochs", "-1"),
        ("--batch-size", "0"),
        ("--views", "0"),
        ("--seed", "-1"),
        ("--seed", str(2**32)),
        ("--learning-rate", "0"),
        ("--learning-rate", "1.5"),
        ("--cache-limit", "0"),
        ("--cache-limit", "inf"),
        ("--int8-max-drop", "101"),
        ("--int8-max-drop", "-0.1"),
        ("--feedback-weight", "0"),
        ("--feedback-weight", "101"),
        ("--feedback-max-share", "0"),
        ("--feedback-max-share", "1.1"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(option: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"^argument {option}: '{value}' is not a .*number"):
        parse(option, value)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--epochs", "1", "--batch-size", "1", "--views", "1", "--fine-tune-epochs", "0"),
        ("--learning-rate", "1", "--seed", str(2**32 - 1), "--cache-limit", "0.001"),
        ("--int8-max-drop", "0"),
        ("--int8-max-drop", "100"),
        ("--feedback-weight", "100", "--feedback-max-share", "1"),
        ("--feedback-weight", "0.1", "--feedback-max-share", "0.001"),
    ],
)
def test_the_ends_of_each_range_are_accepted(arguments: tuple[str, ...]) -> None:
    parse(*arguments)


def test_corrections_are_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path))
    assert options.feedback_folder(parse(*data)) is None
    (tmp_path / "feedback").mkdir()
    assert options.feedback_folder(parse(*data)) == tmp_path / "feedback"
    assert options.feedback_folder(parse(*data, "--no-feedback")) is None
    (tmp_path / "elsewhere").mkdir()
    named = parse(*data, "--feedback", str(tmp_path / "elsewhere"))
    assert options.feedback_folder(named) == tmp_path / "elsewhere"


def test_a_folder_of_corrections_that_is_named_must_be_there_and_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--feedback is .*nowhere: there is no such folder"):
        options.feedback_folder(parse("--feedback", str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="not allowed with argument"):
        parse("--feedback", "data/feedback", "--no-feedback")
