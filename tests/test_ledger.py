"""The last logged step of a run, read from the end of its metrics."""

from pathlib import Path

import pytest

from workbench import files
from workbench.errors import RunError
from workbench.runs import ledger
from workbench.runs.run import Run


def logged(folder: Path, steps: int, then: bytes = b"") -> Run:
    """A run of so many logged steps, and what was written after them."""
    run = Run(folder)
    lines = (files.json_line({"step": step, "loss": 1 / step, "seconds": 0.1 * step}) for step in range(1, steps + 1))
    run.metrics.write_bytes("".join(lines).encode() + then)
    return run


@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("torn", [b"", b'{"step": 7', b'{"step": 70000, "loss": 1.0}'])
def test_it_is_that_of_the_last_whole_line(tmp_path: Path, steps: int, torn: bytes) -> None:
    run = logged(tmp_path, steps, then=torn)
    assert ledger.last_step(run) == steps
    assert ledger.last_step(run) == [row["step"] for row in files.read_jsonl(run.metrics)][-1]


def test_the_end_that_is_read_may_begin_anywhere_in_a_line(tmp_path: Path) -> None:
    assert {ledger.last_step(logged(tmp_path, 1000, b"x" * more)) for more in range(60)} == {1000}


@pytest.mark.parametrize("torn", [b"", b'{"step": 1'])
def test_nothing_is_logged_yet(tmp_path: Path, torn: bytes) -> None:
    assert ledger.last_step(Run(tmp_path)) is None
    assert ledger.last_step(logged(tmp_path, 0, then=torn)) is None


def test_a_damaged_last_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl: is damaged"):
        ledger.last_step(logged(tmp_path, 3, then=b"\x00\xff\n"))
