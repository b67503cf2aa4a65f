"""What the READMEs show must exist and work."""

import ast
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
SCRIPTS = sorted(path.name for path in PROJECT.glob("*.py"))


def text_of(readme: str) -> str:
    return (PROJECT / readme).read_text(encoding="utf-8")


def commands(readme: str) -> list[str]:
    """Every command line of the README's blocks and inline code that starts with python or make."""
    text = text_of(readme)
    blocks = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:python|make) [^`]+)`", text)
    return [line for line in lines if line.startswith(("python ", "make "))]


@functools.cache
def help_of(*script: str) -> str:
    command = [sys.executable, *script, "--help"]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize("readme", READMES)
def test_every_command_names_a_script_and_options_that_exist(readme: str) -> None:
    assert all(f"`{script}`" in text_of(readme) for script in SCRIPTS)
    shown = [shlex.split(line) for line in commands(readme) if line.startswith("python ")]
    assert {script for _, script, *_ in shown} >= set(SCRIPTS)
    for _, script, *arguments in shown:
        known = help_of(script, *(arguments[:1] if script == "-m" else ()))
        for option in arguments:
            if option.startswith("-") and option != "-":
                assert re.search(rf"(^|[\s,\[(]){re.escape(option)}\b", known), (script, option)


@pytest.mark.parametrize("readme", READMES)
def test_every_make_target_exists(readme: str) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = {line.split()[1] for line in commands(readme) if line.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("readme", READMES)
def test_every_option_in_inline_code_belongs_to_some_script(readme: str) -> None:
    known = "".join(help_of(script) for script in SCRIPTS)
    known += "".join(path.read_text() for path in PROJECT.glob("benchmarks/*.py"))
    for code in re.findall(r"`([^`\n]+)`", text_of(readme)):
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", code):
            if not code.startswith(("curl", "tensorboard")):
                assert option in known, option


@pytest.mark.parametrize("readme", READMES)
def test_the_python_example_imports_functions_that_exist(readme: str) -> None:
    import predictWithMyModel

    (example,) = re.findall(r"```python\n(.*?)```", text_of(readme), flags=re.DOTALL)
    imports = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for name in (alias.name for node in imports for alias in node.names):
        assert callable(getattr(predictWithMyModel, name))


@pytest.mark.parametrize("readme", READMES)
def test_links_to_files_lead_somewhere(readme: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text_of(readme))
    assert links
    for link in links:
        assert link.startswith("http") or (PROJECT / link).exists(), link


def test_both_languages_show_the_same_commands_tables_and_blocks() -> None:
    english, chinese = (sorted(commands(readme)) for readme in READMES)
    assert english == chinese
    english, chinese = (re.findall(r"^(?:\||#|```)", text_of(one), re.M) for one in READMES)
    assert english == chinese


def test_the_map_for_contributors_names_files_that_exist() -> None:
    """A file's folder may stand with the one named before it."""
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    names = re.findall(r"`([\w/]+(?:\.py|\.txt|/))`", prose)
    assert len(names) > 25
    files = [path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("[!.]*/**/[!.]*")]
    files += [path.name for path in PROJECT.iterdir()]
    for name in names:
        assert any(f"/{file}".endswith(f"/{name.rstrip('/')}") for file in files), name
