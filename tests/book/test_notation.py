"""The notation: the table is true of the code, and the chapters keep to it."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from book.extensions import ROOT, executed, methods

PAGE = ROOT / "book" / "notation.md"
CHAPTERS = {
    folder: ROOT / "chapters" / folder / "index.md" for folder in executed.folders().values()
}
GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "iota"),
    *("kappa", "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi"),
    *("varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma"),
    *("Phi", "Psi", "Omega"),
}
#: A symbol with its accent and index, at the start of a formula.
HEAD = re.compile(
    r"(?:\\(?:hat|mathcal|bar)\s*)?(?:\\[A-Za-z]+|[A-Za-z])(?:_(?:\w|\\\w+|\{[^}]*\}))?(?:\^\\star)?"
)
SPACE = r"(?:\\[,;]|\s)*"
LETTERS = r"\\(?:alpha|gamma|epsilon|varepsilon|lambda|mu|nu|rho|tau)(?:_t)?"
#: What no formula may contain, and why.
FORBIDDEN = {
    rf"-{SPACE}{LETTERS}{SPACE}(?:g\b|g_|\\nabla|P\^|\\hat{SPACE}m|v_|v\b)": r"the rate is \eta",
    rf"\\(?:mu|gamma|nu){SPACE}v(?:_|\b)": r"the momentum coefficient is \beta",
    r"\\operatorname\{cond\}|\\chi": r"the condition number is \kappa",
    r"\\(?:mathbf|boldsymbol|bm)\s*\{?[A-Za-z\\]": "vectors and matrices are not bold",
    r"\\mathbb\s*\{?[EPV]": r"expectation is \operatorname{E}",
    r"\\\||(?<!\\)\|\|": r"a norm is \lVert \rVert",
    r"(?<![A-Za-z\\{])[A-Zgdvxwz]\^T\b": r"a transpose is ^\top",
    r"\^\*|\^\{\*\}|\\theta_\*": r"an optimum is ^\star",
    r"(?s)\A(?!.*H).*\\nabla\^2\s*f": "the Hessian is H",
    r"\\(?:vert|lvert|mid|\|)?\s*\\mathcal\s*\{?B\}?\s*\\(?:vert|rvert)": "a batch has B samples",
}
#: Parameters under another name; the letter must then be in the table of exceptions.
PARAMETERS = re.compile(
    r"\\nabla\s*f\((?P<a>[uwxyzWX])[_)]|\b(?P<b>[uwxyzW])_\{?[tk]\s*\+\s*1\}?\s*&?=", re.ASCII
)


def formulas(path: Path) -> list[str]:
    """The mathematics of a page."""
    text = re.sub(r"^```+\{rule\}.*?^```+$", "", path.read_text("utf-8"), flags=re.S | re.M)
    displays = re.findall(r"\$\$(.+?)\$\$", text, re.S)
    rest = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
    return displays + re.findall(r"(?<!\$)\$([^$]+)\$", rest)


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table."""
    part = PAGE.read_text("utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def heads(cell: str) -> list[str]:
    """The symbols that a cell introduces: ``$m,\\ \\hat m$`` has two."""
    found = []
    for formula in re.findall(r"\$([^$]+)\$", cell)[:1]:
        parts = re.split(r",\s*\\ ", formula.partition(r"\dots")[0])
        found += [HEAD.match(part.strip())[0] for part in parts]
    return found


def letter(symbol: str) -> str:
    """A symbol without accent and index."""
    return re.sub(r"^\\(?:hat|mathcal|bar)\s*|[_^].*$", "", symbol)


MAIN = rows("Problems") + rows("Methods")
SYMBOLS = [symbol for row in MAIN for symbol in heads(row[0])]


def local(where: str) -> set[str]:
    """The letters that have another meaning in a chapter, or on the cards."""
    return {
        letter(symbol)
        for place, cell, _ in rows("One chapter only")
        if place == where
        for symbol in heads(cell)
    }


#: Formulas by where they stand: a chapter's number, or the cards.
FORMULAS = {folder[:2].lstrip("0"): formulas(path) for folder, path in CHAPTERS.items()}
FORMULAS["cards"] = [method.equation for method in methods.load().values()]
EVERYWHERE = pytest.mark.parametrize("where", FORMULAS)


def test_the_table_is_read():
    assert {r"\theta", "f", r"\lambda_1", r"\eta_t", r"\hat m", r"\mathcal B"} <= set(SYMBOLS)
    assert len(MAIN) > 30
    assert {r"\gamma", "x", "y"} <= local("3")


def test_no_symbol_has_two_rows_unless_both_meanings_are_said():
    said = " ".join(row[0] + row[1] for row in MAIN if "elsewhere" in row[1])
    twice = {symbol for symbol in SYMBOLS if SYMBOLS.count(symbol) > 1}
    assert [symbol for symbol in twice if symbol not in said] == []
    decay = [row for row in MAIN if r"\lambda" in map(letter, heads(row[0]))]
    assert len(decay) == 2 and "elsewhere a curvature" in decay[1][1]


def names() -> set[str]:
    """Every argument and variable of the package and of the chapters' notebooks."""
    sources = [path.read_text("utf-8") for path in (ROOT / "optlab").rglob("*.py")]
    for path in executed.notebooks():
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        sources.append(re.sub(r"^\s*[%!].*$", "pass", code, flags=re.M))
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def test_names_in_code_are_there():
    wanted = {name for row in MAIN for name in re.findall(r"`(\w+)`", row[2])}
    assert len(wanted) > 20
    assert wanted - names() == set()


def test_symbols_are_used_in_a_chapter():
    used = " ".join(
        formula for where in FORMULAS if where != "cards" for formula in FORMULAS[where]
    )
    assert [symbol for symbol in SYMBOLS if symbol not in used] == []


@EVERYWHERE
def test_exceptions_are_used(where):
    used = "".join(FORMULAS[where])
    assert [symbol for symbol in local(where) if symbol not in used] == []


@EVERYWHERE
def test_greek_letters_are_those_of_the_table(where):
    """Each is in the main tables, or among the exceptions there."""
    known = {letter(symbol) for symbol in SYMBOLS} | local(where)
    used = set(re.findall(r"\\([A-Za-z]+)", " ".join(FORMULAS[where]))) & GREEK
    assert {f"\\{name}" for name in used} - known == set()


def faults(formula: str, allowed: set[str]) -> list[str]:
    """What is wrong with a formula."""
    found = [reason for pattern, reason in FORBIDDEN.items() if re.search(pattern, formula)]
    for match in PARAMETERS.finditer(formula):
        name = match["a"] or match["b"]
        if name not in allowed:
            found.append(rf"the parameters are \theta, not {name}")
    return found


@EVERYWHERE
def test_reserved_symbols_are_kept(where):
    wrong = {f: why for f in FORMULAS[where] if (why := faults(f, local(where)))}
    assert wrong == {}


@pytest.mark.parametrize(
    "formula",
    [
        r"\theta \leftarrow \theta - \alpha g",
        r"\theta - \gamma\,\nabla f(\theta)",
        r"\theta - \alpha_t\, g_t",
        r"v \leftarrow \mu v + g",
        r"w_{t+1} = w_t - \eta g",
        r"x_{k+1} &= x_k - \eta \nabla f(x_k)",
        r"\|g\|",
        r"g^T H g",
        r"\theta^*",
        r"\mathbb{E} g",
        r"\mathbf{g}",
        r"\nabla^2 f(\theta) \succeq 0",
        r"\frac1{|\mathcal B|}\sum_i g_i".replace("|", r"\vert "),
    ],
)
def test_the_lint_finds_what_it_is_for(formula):
    assert faults(formula, set())


@pytest.mark.parametrize(
    "formula",
    [
        r"\theta_{t+1} = \theta_t - \eta\, P^{-1} g",
        r"v_t = \alpha v_{t-1} + (1-\alpha) g_t^2",
        r"(1-\eta\mu)^T",
        r"\sum_{t=1}^T g_t",
        r"-\lambda\,\sqrt{v_i}\;\theta_i",
        r"H = \nabla^2 f(\theta)",
        r"S_n\mathbf 1 = 0",
        r"\lVert g \rVert",
    ],
)
def test_the_lint_lets_the_rest_pass(formula):
    assert faults(formula, set()) == []
