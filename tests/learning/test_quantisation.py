import subprocess
import sys
from pathlib import Path

import pytest

from imagesieve.errors import EngineError
from imagesieve.learning.openvino import quantize

REPOSITORY = Path(__file__).resolve().parents[2]

CODE = """
import sys
import socket
def connect(*address): raise SystemExit(f"tried to reach {address}")
socket.socket.connect = socket.getaddrinfo = connect
from pathlib import Path
import numpy as np
from imagesieve.model import engines
from imagesieve.learning.openvino import quantize
ov = engines.import_openvino()
import openvino.opset13 as ops
pixels = ops.parameter([-1, 16, 16, 3], np.float32, name="pixels")
kernel = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
scores = ops.matmul(ops.reduce_mean(pixels, np.array([1, 2]), False), kernel, False, False)
xml = Path(sys.argv[1]) / "model.xml"
ov.save_model(ov.Model([ops.softmax(scores, 1)], [pixels]), xml, compress_to_fp16=False)
images = list(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8))
quantize.quantise(xml, images, xml.with_name("int8.xml"))
found = engines.OpenVINOEngine(xml.with_name("int8.xml"), "int8").run(np.stack(images))
print(found.shape, [name for name in sys.modules if name.startswith("openvino_telemetry.")])
print("tensorflow" in sys.modules, file=sys.stderr)
"""


def test_quantising_reports_to_nobody_and_leaves_standard_output_to_data(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", CODE, str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(8, 4) []\n"
    assert done.stderr == "False\n"
    assert "FakeQuantize" in (tmp_path / "int8.xml").read_text()


def test_a_missing_nncf_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineError, match="NNCF is not installed: run `pip install nncf`"):
        quantize.quantise(Path("a.xml"), [], Path("b.xml"))
