"""The command line: help without heavy imports, models by name, and the arrows between the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, assert_one_line_error, cli


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_help_teaches_and_imports_nothing_heavy():
    code = "import sys, instructrec.cli; print(sorted({'torch', 'pyarrow', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    for command in ("base-model", "init", "build", "inspect", "plan", "publish", "trace", "merge", "chat"):
        done = cli(command, "--help")
        assert done.returncode == 0 and len(done.stdout) > 200


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["biuld"], ["No such command", "'build'"]),
        (["build", "--sed", "3"], ["--sed", "--seed"]),
        (["build", "--seed", "x"], ["--seed"]),
    ],
)
def test_wrong_commands_are_one_line(arguments, parts):
    assert_one_line_error(cli(*arguments), *parts)


def test_no_command_is_a_call_for_help():
    done = cli()
    assert done.returncode == 0 and "base-model" in done.stdout


def test_core_never_imports_torch():
    for path in (ROOT / "instructrec" / "core").glob("*.py"):
        assert not any(name.split(".")[0] in {"torch", "transformers", "trl"} for name in imports(path)), path


def test_builders_see_only_the_core_and_only_the_cli_sees_them():
    for path in (ROOT / "data_builders").rglob("*.py"):
        assert all(n.startswith("instructrec.core") for n in imports(path) if n.startswith("instructrec")), path
    for path in [*(ROOT / "instructrec").rglob("*.py"), *(ROOT / "recipes").glob("*.py")]:
        if path.name != "cli.py":
            assert not any(name.startswith("data_builders") for name in imports(path)), path


def test_a_local_folder_is_its_own_place(tiny_model):
    done = cli("base-model", str(tiny_model))
    assert done.returncode == 0 and done.stdout.strip() == str(tiny_model)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("./nowhere", ["model './nowhere'", "no such folder"]),
        ("someone/nothing", ["model 'someone/nothing'", "smollm2-135m-q4"]),
        ("not a name", ["model 'not a name'", "neither a folder nor a Hub name"]),
    ],
)
def test_a_model_that_is_not_there(tmp_path, name, parts):
    assert_one_line_error(cli("base-model", name, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path)), *parts)


def test_a_folder_without_a_model(tmp_path):
    assert_one_line_error(cli("base-model", str(tmp_path)), "no config.json")


def test_chat_answers_and_ends(tiny_model):
    done = subprocess.run(
        [sys.executable, "-m", "instructrec", "chat", "--model_name_or_path", str(tiny_model), "--max-new-tokens", "5"],
        input="Hello\nAgain\n",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("> ") == 3
