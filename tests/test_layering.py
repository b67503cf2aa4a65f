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
BASE = ("errors", "threads", "files", "class_folders", "logs", "console")
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


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def parts_used(path: str) -> set[str]:
    parts = {part_of(name) for name in all_imports(path)}
    return {part for part in parts if part}


def test_every_part_has_its_place() -> None:
    found = {Path(path).relative_to("imagesieve").parts[0].removesuffix(".py") for path in MODULES}
    assert found == {*PARTS, *WINGS, "__init__"}
    assert "main.py" in SCRIPTS
    assert all_imports("imagesieve/__init__.py") == set()


def test_a_module_imports_only_from_below_and_from_its_own_wing() -> None:
    for path in MODULES:
        part = Path(path).relative_to("imagesieve").parts[0].removesuffix(".py")
        if part != "__init__":
            below = PARTS if part in WINGS else PARTS[part]
            assert parts_used(path) <= {*below, part}, path


def test_nothing_imports_a_script_save_that_main_predicts() -> None:
    scripts = {Path(script).stem for script in SCRIPTS} | {"demo", "benchmarks", "tests"}
    for path in [*SCRIPTS, *MODULES]:
        allowed = {"predictWithMyModel"} if path == "main.py" else set()
        assert roots(all_imports(path)) & scripts <= allowed, path


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_does_nothing_when_imported(script: str) -> None:
    *statements, last = tree(script).body
    assert isinstance(last, ast.If)
    assert ast.unparse(last.test) == "__name__ == '__main__'"
    calls = [node for node in statements if isinstance(node, ast.Expr)]
    assert all(isinstance(node.value, ast.Constant) for node in calls)  # the docstring


def test_frameworks_are_not_imported_on_loading_and_by_serving_never() -> None:
    for path in [*SCRIPTS, *MODULES]:
        names = all_imports(path) if "/serving/" in path else imports_on_loading(path)
        if not {"learning", "explaining"} & set(Path(path).parts):
            assert not roots(names) & set(FRAMEWORKS), path


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
    on_loading, everything = imports_on_loading(path), all_imports(path)
    tree.cache_clear()
    assert on_loading == {
        *("os.path", "keras", "one", "two", "three", "five", "imagesieve.learning"),
        *("imagesieve.serving.app", "imagesieve.images", "imagesieve.web.fetch.get"),
    }
    assert everything == on_loading | {"tensorflow", "four"}
    found = {part_of(name) for name in everything}
    assert found == {"learning", "serving", "images", "web", None}


def run(folder: Path, script: str, argument: str) -> tuple[int, str, list[str]]:
    """Run a script, which must load and write nothing; return exit code and what it printed."""
    command = [sys.executable, "-X", "importtime", str(REPOSITORY / script), argument]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    loaded = roots(set(re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)))
    assert "argparse" in loaded  # the list was understood
    assert not loaded & set(NOT_FOR_HELP)
    assert not list(folder.iterdir())  # no log file, no folder
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, done.stdout, errors


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_a_usage_error_are_quick_and_load_nothing_heavy(
    script: str, tmp_path: Path
) -> None:
    code, printed, _ = run(tmp_path, script, "--help")
    assert code == 0
    assert "examples:" in printed
    assert f"python {script}" in printed
    code, printed, (line,) = run(tmp_path, script, "--no-such-option")
    assert (code, printed) == (2, "")
    assert line.startswith("error: ")
    assert line.endswith(f"(see: {script} --help)")
