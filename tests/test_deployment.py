"""What lies in `deploy/`, and the Dockerfile, fit the program that they run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagesieve.serving.limits import MAX_BATCH_BYTES, MAX_BODY_BYTES, ServingLimits

PROJECT = Path(__file__).resolve().parent.parent
UNIT = PROJECT / "deploy" / "imagesieve.service"
NGINX = PROJECT / "deploy" / "nginx.conf"
DOCKERFILE = PROJECT / "Dockerfile"
README = PROJECT / "deploy" / "README.md"
LIMITS = ServingLimits()


def joined(path: Path) -> str:
    """Return a file's text without comments, with continued lines as one."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


def unit() -> dict[str, list[str]]:
    """Return the unit's settings by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", joined(UNIT), flags=re.MULTILINE):
        found.setdefault(name, []).append(value.strip())
    return found


def directive(name: str) -> str:
    """Return the value of an nginx directive at its first place."""
    match = re.search(rf"^\s*{name}\s+([^;]+);", joined(NGINX), flags=re.MULTILINE)
    assert match, name
    return match[1]


def instruction(name: str) -> str:
    """Return what stands behind an instruction of the Dockerfile, at its last place."""
    return re.findall(rf"^{name} (.*)$", joined(DOCKERFILE), flags=re.MULTILINE)[-1]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def command_lines() -> dict[str, list[str]]:
    start = unit()["ExecStart"][0]
    (run,) = re.findall(r"docker run .*", README.read_text().replace("\\\n", " "))
    return {
        "the unit": shlex.split(start),
        "the Dockerfile": json.loads(instruction("ENTRYPOINT")),
        "the README's container": ["main.py", *run.rpartition(" imagesieve ")[2].split()],
    }


def test_every_option_exists() -> None:
    command = [sys.executable, str(PROJECT / "main.py"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for where, arguments in command_lines().items():
        assert any(argument.endswith("main.py") for argument in arguments), where
        for argument in arguments:
            if argument.startswith("--"):
                assert re.search(rf"^\s+(-\w, )?{argument}\b", text, re.MULTILINE), argument


def test_the_unit_and_the_container_let_the_server_end_what_it_has() -> None:
    settings = unit()
    assert int(settings["TimeoutStopSec"][0]) > LIMITS.drain_seconds
    assert settings["KillSignal"] == ["SIGTERM"]
    assert int(settings["LimitNOFILE"][0]) > 2 * LIMITS.max_connections
    assert int(settings["TasksMax"][0]) > 2 * LIMITS.num_threads
    stop = re.search(r"--stop-timeout (\d+)", README.read_text())
    assert stop
    assert int(stop[1]) > LIMITS.drain_seconds


def test_the_server_may_do_what_it_needs_and_nothing_else() -> None:
    settings = unit()
    (home,) = settings["WorkingDirectory"]
    writable = set(" ".join(settings["ReadWritePaths"]).split())
    assert {f"{home}/{name}" for name in ("modelFile", "data/feedback", "log")} == writable
    made = {f"/var/lib/{name}" for name in settings["StateDirectory"][0].split()}
    assert made == writable
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["NoNewPrivileges"] == ["yes"]
    assert settings["User"] not in ([], ["root"])
    assert settings["CapabilityBoundingSet"] == [""]
    assert "MemoryDenyWriteExecute" not in settings  # OpenVINO compiles
    assert settings["SystemCallFilter"] == ["@system-service"]
    assert int(instruction("USER")) > 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    # The program itself is not installed there, so another one stands in for it.
    python = unit()["ExecStart"][0].split()[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(python, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nginx_lets_the_server_speak_first() -> None:
    megabytes = int(directive("client_max_body_size").removesuffix("m"))
    assert megabytes * 2**20 > MAX_BATCH_BYTES > MAX_BODY_BYTES
    assert seconds(directive("proxy_read_timeout")) > LIMITS.batch_deadline_seconds
    upstream = joined(NGINX).partition("upstream")[2].partition("}")[0]
    idle = re.search(r"keepalive_timeout (\d+)s;", upstream)
    assert idle
    assert int(idle[1]) < LIMITS.idle_seconds


def test_nginx_fits_the_unit() -> None:
    arguments, text = command_lines()["the unit"], joined(NGINX)
    assert directive("server_name") == arguments[arguments.index("--allow-host") + 1]
    assert f"server 127.0.0.1:{arguments[arguments.index('--port') + 1]};" in text
    assert "proxy_set_header Host $host;" in text
    assert text.count("{") == text.count("}")
    lines = [line.partition("  #")[0].strip() for line in text.splitlines() if line.strip()]
    assert all(line.endswith((";", "{", "}")) for line in lines)


def test_the_image_is_made_of_files_that_are_there_and_not_ignored() -> None:
    allowed = {
        line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = [
        name
        for line in re.findall(r"^COPY (.*)$", joined(DOCKERFILE), flags=re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert set(copied) == allowed
    assert all((PROJECT / name).exists() for name in copied)
