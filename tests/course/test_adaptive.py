"""The exercises on adaptive learning rates: graded by nbgrader, each check finds its mistake."""

import re

import nbformat
import pytest
from nbgrader.api import Gradebook

from course import release

ASSIGNMENT = "04-adaptive"
SOURCE = release.ROOT / "course" / "source" / ASSIGNMENT / "exercises.ipynb"
STUDENT = release.ROOT / "chapters" / ASSIGNMENT / "exercises.ipynb"

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # eps under the root: only the hidden tests, whose eps is large, notice.
    "adagrad": """
def adagrad(theta, g, s, *, lr, eps):
    total = s + g * g
    return theta - lr * g / (total + eps) ** 0.5, total
""",
    # eps joins the root before correction: only the hidden tests notice.
    "adam": """
def adam(theta, g, m, v, *, lr, beta1, beta2, eps, step):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    rate = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    return theta - rate * m / (v**0.5 + eps), m, v
""",
    # The formula instead of a search.
    "longest": """
def longest_step(rule, beta1, beta2):
    t = np.arange(1, 3001)
    h = (1 - beta1**t) / np.sqrt(1 - beta2**t)
    if rule is rules.adam:
        h = np.ones(3000)
    return int(h.argmax()) + 1, float(h.max())
""",
    # eps stays under the root.
    "eps-fix": """
def fixed(theta, g, m, v, *, lr, beta1, beta2, eps, step):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = ((v + eps) / (1 - beta2**step)) ** 0.5
    return theta - lr * m / (1 - beta1**step) / root, m, v


def equal_eps(eps, beta2):
    return eps**0.5
""",
    # One step and the parameter alone are looked at: only the hidden tests notice.
    "decoupled": """
def is_decoupled(rule):
    settings = dict(lr=0.1, beta1=0.8, beta2=0.9, eps=1e-8, step=1)
    free, *_ = rule(2.0, 1.0, 0.0, 0.0, **settings, weight_decay=0.0)
    held, *_ = rule(2.0, 1.0, 0.0, 0.0, **settings, weight_decay=0.3)
    return bool(abs(free - held - 0.06) < 1e-9)
""",
}

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of nbgrader


@pytest.fixture(scope="module")
def source():
    return nbformat.read(SOURCE, as_version=4)


@pytest.fixture(scope="module")
def student():
    return nbformat.read(STUDENT, as_version=4)


def graded(notebook):
    """The marks of the cells with points, by name."""
    marks = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    return {mark.grade_id: mark for mark in marks if mark.grade}


def checks(notebook):
    """Points of the autograded cells, by name."""
    return {name: mark.points for name, mark in graded(notebook).items() if not mark.solution}


def submission(student, source, answers):
    """The student's notebook with these answers and else the source's; all solved for None."""
    notebook = nbformat.from_dict(student)
    solved = {cell.id: cell.source for cell in source.cells}
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader")
        if mark and mark.solution and (answers is None or not mark.grade):
            cell.source = (answers or {}).get(mark.grade_id, solved[cell.id])
    return notebook


@pytest.fixture(scope="module")
def grades(tmp_path_factory, student, source):
    """What nbgrader's autograde gives each submission: {student: {cell: points}}."""
    folder = tmp_path_factory.mktemp("adaptive").resolve()
    api = release.grader(folder)
    submissions = {
        "reference": submission(student, source, None),
        "untouched": student,
        "every-mistake": submission(student, source, WRONG),
        "adam": submission(student, source, {"adam": WRONG["adam"]}),
    }
    given = {}
    for name, notebook in submissions.items():
        path = folder / "submitted" / name / ASSIGNMENT / "exercises.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        done = api.autograde(ASSIGNMENT, name)
        assert done["success"], done.get("error") or done.get("log")
        with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "optlab") as gradebook:
            book = gradebook.find_submission_notebook("exercises", ASSIGNMENT, name)
            given[name] = {grade.name: grade.auto_score for grade in book.grades}
    return given


def lost(points, full):
    return {name for name in full if points[name] != full[name]}


def test_the_reference_gets_every_point_and_an_untouched_notebook_none(grades, source):
    assert lost(grades["reference"], checks(source)) == set()
    assert set(grades["untouched"].values()) == {0}


def test_every_check_finds_its_mistake_and_no_other(grades, source):
    full = checks(source)
    assert {f"{name}-check" for name in WRONG} == set(full)
    assert lost(grades["every-mistake"], full) == set(full)
    assert lost(grades["adam"], full) == {"adam-check"}


def test_points_are_those_of_the_table_and_add_up_to_one_hundred(source):
    assert sum(mark.points for mark in graded(source).values()) == 100
    rows = [row for row in source.cells[0].source.splitlines() if re.match(r"\| \d", row)]
    told = [sum(int(n) for n in row.split("|")[4].split("+")) for row in rows]
    sections = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    stated = [
        sum(int(n) for n in re.findall(r"\d+(?= points)", line))
        for line in re.findall(r"^\*.*?Trains: .*\*$", sections, re.M)
    ]
    assert len(told) == 9 and told == stated and sum(told) == 100


def test_every_exercise_is_solved_and_no_solution_is_shown(source, student):
    for cell in source.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            assert "".join(text for _, text in release.REGION.findall(cell.source)).strip()
    shown = {line.strip() for cell in student.cells for line in cell.source.splitlines()}
    allowed = {line.strip() for line in release.visible(source).splitlines()}
    secret = {line for line in release.secrets(source) if len(line) > 10} - allowed
    assert len(secret) > 100 and shown & secret == set()
