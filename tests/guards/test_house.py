"""The house's own rules: who imports whom, settings and README agree, nothing is left for later."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest

from config.settings import Settings
from tests.platform import ROOT

LATER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X{3})\b")
ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \|", re.MULTILINE)


def test_nobody_imports_against_the_rules() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_the_readme_lists_every_setting_and_no_other() -> None:
    listed = ROW.findall((ROOT / "README.md").read_text())
    assert sorted(listed) == sorted(field.metadata["env"] for field in fields(Settings))


def files() -> list[str]:
    known = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(known, cwd=ROOT, capture_output=True, text=True, timeout=20)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.split("\n")[:-1]


def test_nothing_is_left_for_later() -> None:
    left = []
    for name in files():
        path = ROOT / name
        if path.is_file() and LATER.search(path.read_bytes().decode(errors="replace")):
            left.append(name)
    assert left == []
