"""The import rules of the package, read from the source, and what `--help` may cost."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.name for path in REPOSITORY.glob("*.py"))
MODULES = sorted(
    path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("imagesieve/**/*.py")
)

# What each part of the package may import: itself, and what is named here.
BASE = ("errors", "cores", "files", "class_folders", "logs", "console")
PARTS = {
    **{name: BASE[:number] for number, name in enumerate(BASE)},
    "intervals": (),
    "web": BASE,
    "images": BASE,
    "model": (*BASE, "images"),
    "prediction": (*BASE, "images", "model"),
    "explaining": (*BASE, "images", "model"),
    "feedback": BASE,
}
WINGS = ("collecting", "learning", "serving")

FRAMEWORKS = ("tensorflow", "keras", "nncf", "ray", "matplotlib", "h5py", "sklearn", "scipy")
NOT_FOR_HELP = ("tensorflow", "keras", "openvino", "matplotlib", "flask", "requests")


@functools.cache
def tree(path: str) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), path)


def package_of(path: str) -> list[str]:
    return list(Path(path).parent.parts)


def imported(path: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Return the dotted names that these statements of a file may import.

    `from imagesieve import images` may mean a module or a name, so it counts as
    `imagesieve.images`.
    """
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package_of(path)[: len(package_of(path)) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def all_imports(path: str) -> set[str]:
    return imported(path, ast.walk(tree(path)))


def imports_on_loading(path: str) -> set[str]:
    """Return what a file imports when it is imported: no functions, no TYPE_CHECKING."""

    def statements(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from statements(node.orelse)
                continue
            yield node
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)

    return imported(path, statements(tree(path).body))


def part_of(dotted: str) -> str | None:
    """Return `images` for `imagesieve.images.decoding.decode`, None for other packages."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "imagesieve" and len(parts) > 1 else None


def parts_used(path: str) -> set[str]:
    parts = {part_of(name) for name in all_imports(path)}
    return {part for part in parts if part}


def may_use(part: str) -> set[str]:
    """Return the parts that a part may import from, itself included."""
    return {*PARTS, part} if part in WINGS else {*PARTS[part], part}


def test_every_part_has_its_place() -> None:
    found = {Path(path).relative_to("imagesieve").parts[0].removesuffix(".py") for path in MODULES}
    assert found == {*PARTS, *WINGS, "__init__"}
    assert "main.py" in SCRIPTS


@pytest.mark.parametrize("path", [path for path in MODULES if path != "imagesieve/__init__.py"])
def test_a_module_imports_only_from_below_and_from_its_own_wing(path: str) -> None:
    part = Path(path).relative_to("imagesieve").parts[0].removesuffix(".py")
    assert parts_used(path) <= may_use(part)


def test_the_package_itself_imports_nothing() -> None:
    assert all_imports("imagesieve/__init__.py") == set()


@pytest.mark.parametrize("path", MODULES)
def test_the_package_never_imports_a_script(path: str) -> None:
    scripts = {Path(script).stem for script in SCRIPTS} | {"demo", "benchmarks", "tests"}
    assert not {name.split(".")[0] for name in all_imports(path)} & scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_imports_no_other_script(script: str) -> None:
    scripts = {Path(other).stem for other in SCRIPTS}
    allowed = {"predictWithMyModel"} if script == "main.py" else set()
    assert {name.split(".")[0] for name in all_imports(script)} & scripts <= allowed


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_does_nothing_when_imported(script: str) -> None:
    *statements, last = tree(script).body
    assert isinstance(last, ast.If)
    assert ast.unparse(last.test) == "__name__ == '__main__'"
    calls = [node for node in statements if isinstance(node, ast.Expr)]
    assert all(isinstance(node.value, ast.Constant) for node in calls)  # the docstring


@pytest.mark.parametrize("path", [*SCRIPTS, *MODULES])
def test_frameworks_are_not_imported_on_loading(path: str) -> None:
    roots = {name.split(".")[0] for name in imports_on_loading(path)}
    inside = {"learning", "explaining"} & set(Path(path).parts)
    assert not roots & set(() if inside else FRAMEWORKS)


@pytest.mark.parametrize("path", [path for path in MODULES if "/serving/" in path])
def test_serving_never_imports_a_framework_itself(path: str) -> None:
    roots = {name.split(".")[0] for name in all_imports(path)}
    assert not roots & set(FRAMEWORKS)


def test_importing_all_of_serving_imports_no_framework() -> None:
    modules = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in MODULES
        if "/serving/" in path
    ]
    code = (
        f"import sys, {', '.join(modules)}\n"
        f"print(sorted({{*{FRAMEWORKS}, 'openvino'}} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_reader_of_imports_sees_every_way_to_write_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagesieve" / "serving").mkdir(parents=True)
    (tmp_path / "imagesieve" / "serving" / "x.py").write_text(
        "import os.path, keras as k\n"
        "from imagesieve import learning\n"
        "from . import app\n"
        "from .. import images\n"
        "from ..web.fetch import get\n"
        "try:\n    import one\nexcept ImportError:\n    import two\n"
        "class A:\n    import three\n"
        "def f():\n    import tensorflow\n"
        "if TYPE_CHECKING:\n    import four\nelse:\n    import five\n"
    )
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    path = "imagesieve/serving/x.py"
    on_loading = imports_on_loading(path)
    everything = all_imports(path)
    tree.cache_clear()
    assert on_loading == {
        "os.path",
        "keras",
        "imagesieve.learning",
        "imagesieve.serving.app",
        "imagesieve.images",
        "imagesieve.web.fetch.get",
        *("one", "two", "three", "five"),
    }
    assert everything == on_loading | {"tensorflow", "four"}
    assert {part_of(name) for name in everything} == {
        "learning",
        "serving",
        "images",
        "web",
        None,
    }


def run(script: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(REPOSITORY / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def modules_imported(importtime: str) -> set[str]:
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", importtime, re.MULTILINE)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick_and_loads_nothing_heavy(script: str, tmp_path: Path) -> None:
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert f"python {script}" in done.stdout
    loaded = modules_imported(done.stderr)
    assert "argparse" in loaded  # the list was understood
    assert not loaded & set(NOT_FOR_HELP)
    assert not list(tmp_path.iterdir())  # no log file, no folder


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_usage_error_is_quick_and_exits_with_2(script: str, tmp_path: Path) -> None:
    done = run(script, "--no-such-option", cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(f"(see: {script} --help)")
    assert done.stdout == ""
    assert not modules_imported(done.stderr) & set(NOT_FOR_HELP)
    assert not list(tmp_path.iterdir())
