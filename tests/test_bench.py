"""scripts/bench measures and prints ratios (no figure is asserted: machines are noisy)."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_startup_is_measured_as_ratios(tmp_path: Path) -> None:
    out = tmp_path / "startup.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench"), "startup", "--rounds", "1", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(out.read_text())
    assert {"--help / bare imports", "check / bare imports", "runs / bare imports"} <= found.keys()
