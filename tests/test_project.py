"""The repository holds together: versions, floors, sizes, targets."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SOURCES = sorted((ROOT / "optlab").rglob("*.py"))


def module(path: Path) -> str:
    """A source's name below the package: ``rules``, ``widgets.javascript``."""
    return ".".join(path.relative_to(ROOT / "optlab").with_suffix("").parts).removesuffix(
        ".__init__"
    )


MODULES = sorted(map(module, SOURCES[1:]))  # all but the package itself


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    matches = [re.fullmatch(r"([\w.-]+)==([\w.!]+)", line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {canonicalize_name(match[1]): Version(match[2]) for match in matches}


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def test_every_requirement_is_pinned_to_a_version_that_it_allows():
    pinned = pins()
    for requirement in requirements():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_conda_users_get_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *plain, nested = environment["dependencies"]
    assert plain == [f"python{PROJECT['project']['requires-python']}", "pip"]
    extras = ",".join(PROJECT["project"]["optional-dependencies"])
    assert nested == {"pip": ["--constraint constraints.txt", f"--editable .[{extras}]"]}


def test_versions_of_the_project_agree():
    version = PROJECT["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "optlab" / "__init__.py").read_text("utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_npm_packages_are_pinned_by_hash():
    package = json.loads((ROOT / "package.json").read_text("utf-8"))
    locked = json.loads((ROOT / "package-lock.json").read_text("utf-8"))["packages"]
    assert locked[""]["dependencies"] == package["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in package["dependencies"].values())
    for name, entry in locked.items():
        assert not name or entry["integrity"].startswith("sha512-"), name


def test_make_alone_lists_every_target():
    text = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert targets == phony
    done = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make (\w+) +\w", done.stdout, re.MULTILINE))
    assert listed == targets


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text("utf-8")
    assert script.stat().st_mode & 0o111


def test_workflows_run_the_targets():
    texts = [p.read_text("utf-8") for p in (ROOT / ".github" / "workflows").glob("*.yml")]
    assert all(yaml.safe_load(text)["jobs"] for text in texts)
    assert any("make test" in text for text in texts)
    assert any("make book SERVE=0" in text for text in texts)


def statements(text):
    """The lines of code in a module: no comments, docstrings or blank lines."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return sum(bool(line.strip()) for line in ast.unparse(tree).splitlines())


def test_modules_are_short():
    texts = {path: path.read_text("utf-8") for path in SOURCES}
    assert [path for path, text in texts.items() if len(text.splitlines()) > 300] == []
    assert sum(map(statements, texts.values())) < 7500, "without docstrings and comments"


def test_every_module_has_a_floor():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    floors = next(c for c in contracts if c["id"] == "floors")["layers"]
    known = set(re.findall(r"\w+", " ".join(floors)))
    assert {name.partition(".")[0] for name in MODULES} <= known


@pytest.mark.parametrize("module", ["rules", "landscapes", "descent", "modes"])
def test_equations_import_neither_torch_nor_numpy(module):
    code = f"import sys, optlab.{module}; print(*{{'torch', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_module_is_on_the_api_page():
    page = (ROOT / "book" / "api.md").read_text("utf-8")
    shown = set(re.findall(r"automodule:: optlab\.([\w.]+)", page))
    assert shown == set(MODULES)


def test_nothing_is_installed_under_the_bare_name():
    """The name ``optlab`` on the package index belongs to another project."""
    wrong = re.compile(r"pip3? install[^\n]*[ \"']optlab(?!-book)\b(?![/.])")
    suffixes = {".md", ".py", ".ipynb", ".toml", ".yml", ".txt", ".cff"}
    for folder in ("book", "chapters", "optlab", "course", "."):
        pattern = "*" if folder == "." else "**/*"
        for path in (ROOT / folder).glob(pattern):
            if path.suffix in suffixes and path.is_file():
                assert not wrong.search(path.read_text("utf-8")), path


def test_measured_bars_have_their_rows():
    keys = {"bar", "value", "limit", "holds", "spread", "command", "hardware", "date"}
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        rows = json.loads(path.read_text("utf-8"))
        assert rows and all(keys <= set(row) for row in rows), path
