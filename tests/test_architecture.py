"""The rules of the house: what a desk process loads, who imports whom, how large a room is, what is documented."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from test_runs import Desk

PACKAGE = ROOT / "workbench"
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "wandb", "trackio", "tensorboard", "mlflow", "accelerate",
         "bitsandbytes", "lm_eval")  # fmt: skip

HIDDEN_IMPORTS = {
    ("workbench.hub", "huggingface_hub"): "a quarter of a second that a run on local directories need not spend",
    ("workbench.worker.__main__", "workbench.worker.stages"): "the lock and the log come before seconds of imports",
    ("workbench.worker.export", "*"): "errors of the imports are told in words; libraries are quietened first",
    ("workbench.worker.exact", "*"): "errors of the imports are told in words; libraries are quietened first",
    ("workbench.worker.generate", "*"): "errors of the imports are told in words; libraries are quietened first",
    ("workbench.worker.show_data", "*"): "errors of the imports are told in words; libraries are quietened first",
    ("workbench.worker.rehearse", "*"): "errors of the imports are told in words; libraries are quietened first",
    ("workbench.worker.prefetch", "*"): "the same; and seconds that nothing needs where nothing could be fetched",
    ("workbench.evaluation.harness", "lm_eval"): "an extra that need not be installed",
    ("workbench.tracking.trackio", "trackio"): "where its database is, it reads once, when it is imported",
    ("workbench.tracking.__main__", "*"): "each library takes a second, and one that is missing is told in words",
}
"""(module, what it imports inside a function: a module, a package, or anything) -> why it may. The verbs of `cli` are
lazy by design."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


COMMAND_LINE = ("workbench.cli", "workbench.cli_cluster", "workbench.cli_results")
"""Where verbs are declared."""
MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports_in(module: str, node: ast.AST) -> Iterator[tuple[str, int]]:
    """The dotted names that one import statement reaches, with its line."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, node.lineno
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module}:{node.lineno} imports by a relative name"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in MODULES else str(node.module), node.lineno


def imports(module: str) -> set[str]:
    """Everything that a module imports, in functions too."""
    return {name for node in ast.walk(TREES[module]) for name, _ in imports_in(module, node)}


def ours(module: str) -> set[str]:
    """The modules of ours among them."""
    return {name for name in imports(module) if name in MODULES}


def room(*names: str) -> list[str]:
    """The modules in some rooms."""
    found = [
        module
        for module in MODULES
        if any(module == f"workbench.{name}" or module.startswith(f"workbench.{name}.") for name in names)
    ]
    assert found, names
    return found


def reach(modules_of_room: list[str], *rooms: str) -> set[tuple[str, str]]:
    """(module, import) pairs from some modules into rooms."""
    barred = set(room(*rooms))
    return {(module, name) for module in modules_of_room for name in ours(module) & barred}


# --- what a desk process loads ---------------------------------------------------------------------------------------

DESK = """
import contextlib, importlib, io, json, sys
import workbench.cli

heavy, calls = json.loads(sys.argv[1]), json.loads(sys.argv[2])
found = {}

def look(what):
    loaded = [name for name in heavy if name in sys.modules]
    if loaded:
        found[what] = loaded

look("import workbench.cli")
for module in ("desk", "doctor", "explain", "export", "ledger", "prefetch", "publish", "train", "compare", "pack",
               "reproduce"):
    importlib.import_module(f"workbench.verbs.{module}")
    look(f"import workbench.verbs.{module}")
for arguments, expected in calls:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            workbench.cli.app(arguments, standalone_mode=True)
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    assert status == expected, (arguments, status, said.getvalue())
    assert said.getvalue().strip(), arguments
    look(" ".join(arguments))
print(json.dumps(found))
"""


def test_the_desk_answers_without_the_heavy_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    one, two = desk.finished(name="one"), desk.finished("method.rank=8", name="two")
    verbs = ("train", "check", "explain", "schema", "bases", "runs", "show", "compare", "eval", "generate", "data",
             "plan", "targets", "rules", "doctor", "rehearse", "prefetch", "publish", "reproduce", "pack",
             "export")  # fmt: skip
    calls: list[tuple[list[str], int]] = [(["--help"], 0), *((([verb, "--help"], 0)) for verb in verbs)]
    calls += [
        (["check", str(desk.recipe())], 0),
        (["plan", "quickstart"], 0),
        (["plan", "qwen-lora", "--targets", "all"], 0),
        (["plan", "qwen-lora", "--bases", "all", "--target", "rtx-4090"], 0),
        (["targets", "rtx"], 0),
        (["rules", "fsdp"], 0),
        (["runs", "--planner"], 0),
        (["explain", "method.rank"], 0),
        (["explain", "recipe"], 0),
        (["schema"], 0),
        (["bases", "qwen"], 0),
        (["rules"], 0),
        (["runs"], 0),
        (["show", one.name], 0),
        (["compare", one.name, two.name, "--vary", "method.rank"], 0),
        (["pack", one.name, "--out", "one.tar.gz"], 0),
        (["pack", "--check", "one.tar.gz"], 0),
        (["runs", "rm", one.name], 0),
        (["runs", "prune"], 0),
        (["prefetch", "quickstart"], 0),
        (["prefetch", "quickstart-study"], 0),
    ]
    done = subprocess.run(
        [sys.executable, "-c", DESK, json.dumps(HEAVY), json.dumps(calls)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_help_check_and_runs_need_neither_scipy_nor_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They answer like a shell command; only comparisons pay for statistics."""
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    calls = [(["--help"], 0), (["check", str(desk.recipe())], 0), (["runs"], 0), (["show", desk.run().name], 0)]
    code = DESK.replace('"train", "compare", "pack",\n               "reproduce"', '"train"')
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(["scipy", "pyarrow", "huggingface_hub", "numpy"]), json.dumps(calls)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


# --- who imports whom ------------------------------------------------------------------------------------------------


def test_errors_and_the_schema_import_nothing_of_ours() -> None:
    assert ours("workbench.errors") == set()
    assert ours("workbench.recipe.section") == set()
    assert ours("workbench.recipe.tracking") == {"workbench.recipe.section"}
    assert ours("workbench.recipe.schema") == {"workbench.recipe.section", "workbench.recipe.tracking"}


def test_the_catalog_knows_errors_documents_and_itself_only() -> None:
    allowed = {*room("errors", "documents", "catalog")}
    assert {(module, name) for module in room("catalog") for name in ours(module) - allowed} == set()


def test_documents_and_files_stand_at_the_bottom() -> None:
    assert ours("workbench.documents") == {"workbench.errors"}
    assert ours("workbench.files") == {"workbench.errors"}


def test_statistics_take_arrays_and_know_nothing_of_runs() -> None:
    assert ours("workbench.compare.statistics") == set()


def test_the_bench_knows_neither_runs_nor_what_is_above_them() -> None:
    bench = room("data", "bases", "methods", "training", "evaluation")
    assert reach(bench, "runs", "launch", "tracking", "worker", "cli", "verbs") == set()


def test_the_desk_reaches_the_bench_by_a_process_and_never_by_an_import() -> None:
    desk = room(
        "cli",
        "cli_results",
        "verbs",
        "recipe",
        "catalog",
        "plan",
        "runs",
        "launch",
        "compare",
        "packs",
        "documents",
        "files",
        "errors",
    )
    assert reach(desk, "worker", "data", "methods", "training", "bases", "evaluation", "tracking") == set()
    heavy = {
        (module, name) for module in desk for name in imports(module) if name.split(".")[0] in (*HEAVY, "safetensors")
    }
    assert heavy == set()


def test_names_meet_tables_in_one_place() -> None:
    tables = {"workbench.catalog.bases", "workbench.catalog.targets"}
    readers = {module for module in MODULES if ours(module) & tables and module not in room("catalog")}
    allowed = {
        "workbench.recipe.resolve",
        "workbench.recipe.resolved",  # a resolved recipe holds the target's row
        "workbench.recipe.rules.facts",  # rules judge a base by its row
        "workbench.recipe.hardware",  # names of hardware
        "workbench.recipe.variants",  # the same recipe on another row
        "workbench.recipe.architecture",  # what a base is made of: its row, or its own config.json
        "workbench.verbs.desk",  # `workbench bases` and `workbench targets` show the tables themselves
        "workbench.plan.shapes",  # counts a row that it is given
        "workbench.worker.exporting.facts",  # a card says what the base's licences ask
    }
    assert readers <= allowed


def test_what_is_below_does_not_know_what_is_above() -> None:
    """Top first; a room may import only from its own layer or from lower ones."""
    layers = [
        ("__main__",), ("cli",), ("verbs",), ("worker",), ("launch", "tracking"), ("runs",), ("recipe.pin",),
        ("recipe.resolve", "recipe.rules", "recipe.identity"), ("recipe.load", "recipe.resolved"), ("recipe.schema",),
        ("recipe.section",),
        ("catalog",), ("documents", "files"), ("errors",),
    ]  # fmt: skip
    for at, layer in enumerate(layers):
        for above in layers[:at]:
            assert reach(room(*layer), *above) == set()


def test_only_composing_rooms_join_the_bench_and_the_runs() -> None:
    bench = set(room("data", "bases", "methods", "training", "evaluation"))
    both = {module for module in MODULES if ours(module) & bench and ours(module) & set(room("runs"))}
    assert both <= set(room("worker"))


def test_imports_make_no_cycle() -> None:
    graph = {module: ours(module) - {module} for module in MODULES}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for name in sorted(graph[module]):
                walk(name, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def hidden_imports() -> Iterator[tuple[str, str, int]]:
    """(module, import, line) of every import that stands inside a function."""
    for module, tree in TREES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    yield from ((module, name, line) for name, line in imports_in(module, node))


def reasons(module: str, name: str) -> set[tuple[str, str]]:
    """The entries of HIDDEN_IMPORTS that allow an import."""
    return {(module, allowed) for allowed in (name, name.split(".")[0], "*")} & HIDDEN_IMPORTS.keys()


def test_no_import_is_hidden_in_a_function_without_a_reason() -> None:
    found = {(module, name) for module, name, _ in hidden_imports() if module not in COMMAND_LINE}
    assert {pair for pair in found if not reasons(*pair)} == set()


def test_every_reason_for_a_hidden_import_is_still_needed() -> None:
    needed = {reason for module, name, _ in hidden_imports() for reason in reasons(module, name)}
    assert HIDDEN_IMPORTS.keys() - needed == set()


def test_the_command_line_imports_its_verbs_when_they_are_called() -> None:
    for line in COMMAND_LINE:
        at_the_top = {name for node in TREES[line].body for name, _ in imports_in(line, node)}
        own = {"workbench.arguments", *COMMAND_LINE}
        assert at_the_top <= {"__future__", "sys", "pathlib", "typing", "typer", *own}
    assert ours("workbench.arguments") == set()
    lazy = {name for module, name, _ in hidden_imports() if module in COMMAND_LINE}
    assert lazy <= {*room("verbs"), "workbench.bench"}


# --- rooms -----------------------------------------------------------------------------------------------------------


def test_no_file_is_longer_than_300_lines() -> None:
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method with its module."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


def test_no_function_is_longer_than_60_lines() -> None:
    long = {
        f"{module}.{node.name}": length
        for module, node in functions()
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 60
    }
    assert long == {}


def test_no_room_is_called_after_nothing() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core"}
    assert {name for name in MODULES if vague & set(name.split("."))} == set()


def test_errors_are_not_swallowed() -> None:
    """`except Exception` that does nothing, or a bare `except`."""
    swallowed = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = {inner.id for inner in ast.walk(node.type) if isinstance(inner, ast.Name)} if node.type else set()
            broad = node.type is None or names & {"Exception", "BaseException"}
            idle = all(isinstance(line, ast.Pass | ast.Continue) or _is_text(line) for line in node.body)
            if node.type is None or (broad and idle):
                swallowed.append(f"{module}:{node.lineno}")
    suppressed = [
        f"{module}:{node.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress")
        and {ast.unparse(argument) for argument in node.args} & {"Exception", "BaseException"}
    ]  # fmt: skip
    assert swallowed + suppressed == []


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def undocumented(node: ast.Module | ast.ClassDef, place: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            if not ast.get_docstring(inner):
                yield f"{place}.{inner.name}"
            if isinstance(inner, ast.ClassDef):
                yield from undocumented(inner, f"{place}.{inner.name}")


def test_everything_public_is_documented() -> None:
    silent = [place for module, tree in TREES.items() for place in undocumented(tree, module)]
    silent += [module for module, tree in TREES.items() if not ast.get_docstring(tree) and tree.body]
    assert silent == []


def test_no_work_is_left_over_in_comments() -> None:
    words = ("TODO", "FIXME", "XXX")
    left = [
        f"{module}: {word}"
        for module, path in MODULES.items()
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert left == []


def test_only_one_module_knows_the_names_of_a_run_directory() -> None:
    """Everybody else asks `Run` for a path."""
    names = {"resolved.json", "identity.json", "metrics.jsonl", "attempts.jsonl", "status.json", "cost.json",
             "proof.json", "training.json", "probe.safetensors", "items.jsonl", "recipe.yaml"}  # fmt: skip
    knowing = {
        (module, node.value)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
    }
    elsewhere = {pair for pair in knowing if pair[0] != "workbench.runs.run"}
    assert elsewhere <= {("workbench.runs.create", "resolved.json")}
