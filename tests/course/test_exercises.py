"""The exercises: generated, graded by nbgrader, and free of solutions.

``mistakes_NN_name.py`` has a chapter's WRONG, one mistake for each autograded exercise (the cell
that it replaces, and the new cell), and ALONE, those that are also made one at a time.
"""

import importlib
import re

import nbformat
import pytest
from nbgrader.api import Gradebook

from course import release

ROOT = release.ROOT  # one test moves the module's
ASSIGNMENTS = sorted(path.name for path in (ROOT / "course" / "source").iterdir() if path.is_dir())

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of nbgrader


def student_path(assignment):
    return ROOT / "chapters" / assignment / "exercises.ipynb"


@pytest.fixture(scope="module", params=ASSIGNMENTS)
def assignment(request):
    return request.param


@pytest.fixture(scope="module")
def mistakes(assignment):
    return importlib.import_module(f"tests.course.mistakes_{assignment.replace('-', '_')}")


@pytest.fixture(scope="module")
def source(assignment):
    path = ROOT / "course" / "source" / assignment / "exercises.ipynb"
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def student(assignment):
    return nbformat.read(student_path(assignment), as_version=4)


def graded_cells(notebook):
    """The cells with points, by name; written answers and experiments are solutions too."""
    marked = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    return {c.metadata.nbgrader.grade_id: c for c in marked if c.metadata.nbgrader.grade}


def checks(notebook):
    """Points of the autograded cells, by name."""
    cells = graded_cells(notebook).items()
    return {k: c.metadata.nbgrader.points for k, c in cells if not c.metadata.nbgrader.solution}


def submission(student, source, answers):
    """The student's notebook with the answers of ``answers`` and else those of the source.

    Only autograded answers are filled in, unless ``answers`` is None: then all are.
    """
    notebook = nbformat.from_dict(student)
    solved = {cell.id: cell.source for cell in source.cells}
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader")
        if mark and mark.solution and (answers is None or not mark.grade):
            cell.source = (answers or {}).get(mark.grade_id, solved[cell.id])
    return notebook


@pytest.fixture(scope="module")
def grades(tmp_path_factory, assignment, mistakes, student, source):
    """What nbgrader's autograde gives each submission: {student: {cell: points}}, and its files."""
    folder = tmp_path_factory.mktemp("course").resolve()
    api = release.grader(folder)
    submissions = {
        "reference": submission(student, source, None),
        "untouched": student,
        "every-mistake": submission(student, source, mistakes.WRONG),
        **{
            name: submission(student, source, {name: mistakes.WRONG[name]})
            for name in mistakes.ALONE
        },
    }
    given = {}
    for name, notebook in submissions.items():
        path = folder / "submitted" / name / assignment / "exercises.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        done = api.autograde(assignment, name)
        assert done["success"], done.get("error") or done.get("log")
        with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "optlab") as gradebook:
            book = gradebook.find_submission_notebook("exercises", assignment, name)
            given[name] = {grade.name: grade.auto_score for grade in book.grades}
    return given, folder / "autograded"


def lost(points, full):
    return {name: full[name] - points[name] for name in full if points[name] != full[name]}


def test_the_students_versions_are_the_generated_ones():
    paths = map(student_path, ASSIGNMENTS)
    assert release.released() == {path: path.read_text("utf-8") for path in paths}


def test_check_names_what_is_stale_and_release_repairs_it(tmp_path, monkeypatch, capsys):
    assignment = ASSIGNMENTS[0]
    for name in ("course/nbgrader_config.py", f"course/source/{assignment}/exercises.ipynb"):
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((release.ROOT / name).read_bytes())
    monkeypatch.setattr(release, "ROOT", tmp_path)
    written = tmp_path / "chapters" / assignment / "exercises.ipynb"
    assert release.main(["--check"]) == 1
    assert f"chapters/{assignment}/exercises.ipynb is stale" in capsys.readouterr().err
    assert not written.exists()
    assert release.main([]) == 0
    assert written.read_bytes() == student_path(assignment).read_bytes()
    assert [path.name for path in written.parent.iterdir()] == ["exercises.ipynb"]


def test_the_reference_gets_every_autograded_point(grades, source):
    assert lost(grades[0]["reference"], checks(source)) == {}


def test_the_reference_runs_without_an_error_or_a_warning(grades, assignment):
    ran = nbformat.read(grades[1] / "reference" / assignment / "exercises.ipynb", as_version=4)
    outputs = [o for cell in ran.cells if cell.cell_type == "code" for o in cell.outputs]
    assert outputs
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


def test_an_untouched_notebook_gets_nothing(grades):
    assert set(grades[0]["untouched"].values()) == {0}


def test_a_mistake_loses_its_points_and_no_others(grades, source, mistakes):
    full = checks(source)
    for name in mistakes.ALONE:
        assert lost(grades[0][name], full) == {f"{name}-check": full[f"{name}-check"]}


def test_every_check_finds_its_mistake(grades, source, mistakes):
    full = checks(source)
    assert {f"{name}-check" for name in mistakes.WRONG} == set(full)
    assert lost(grades[0]["every-mistake"], full) == full


def test_every_exercise_has_points_and_solutions(source):
    sections, title = {}, None
    for cell in source.cells:
        if heading := re.match(r"## (Exercise \d+): ", cell.source):
            title = heading[1]
        if title:
            sections.setdefault(title, []).append(cell)
    assert list(sections) == [f"Exercise {n}" for n in range(1, len(sections) + 1)]
    assert len(sections) >= 10
    for title, cells in sections.items():
        marks = [cell.metadata.nbgrader for cell in cells if "nbgrader" in cell.metadata]
        answers = [c for c in cells if c.metadata.get("nbgrader", {}).get("solution")]
        assert answers, f"{title} has no solution"
        for cell in answers:
            assert "".join(text for _, text in release.REGION.findall(cell.source)).strip(), cell.id
        stated = re.search(r"^\*(.*?)\. Trains: .+?\.\*$", cells[0].source, re.M | re.S)
        assert stated, f"{title} does not say what it trains"
        stated = re.sub(r"\s+", " ", stated[1])
        told = [int(n) for n in re.findall(r"\d+(?= \+| points)", stated)]
        assert sum(told) == sum(mark.get("points", 0) for mark in marks), title


def test_the_points_add_up_to_one_hundred(source):
    cells = graded_cells(source).values()
    assert sum(cell.metadata.nbgrader.points for cell in cells) == 100
    rows = [row for row in source.cells[0].source.splitlines() if re.match(r"\| \d", row)]
    told = [row.split("|")[4] for row in rows]
    assert sum(int(n) for row in told for n in row.split("+")) == 100
    assert len(checks(source)) >= 5


def test_no_solution_stands_in_the_students_version(assignment, source, student):
    text = student_path(assignment).read_text("utf-8")
    assert "BEGIN SOLUTION" not in text and "HIDDEN TESTS" not in text
    shown = {line.strip() for cell in student.cells for line in cell.source.splitlines()}
    allowed = {line.strip() for line in release.visible(source).splitlines()}
    secret = {line for line in release.secrets(source) if len(line) > 10} - allowed
    assert len(secret) > 100
    assert shown & secret == set()
    assert all(not cell.get("outputs") for cell in student.cells)


def test_a_solution_that_slips_through_is_not_written(tmp_path, source):
    leaky = tmp_path / "exercises.ipynb"
    nbformat.write(source, leaky)
    with pytest.raises(release.ReleaseError, match="would show students"):
        release._normalised(leaky, source)
