"""Settings of nbgrader.  Its commands read them when they are run in this folder."""

c = get_config()  # noqa: F821  (traitlets puts it here)

c.CourseDirectory.course_id = "optlab"
c.CourseDirectory.release_directory = "released"

c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError"}
c.ClearSolutions.text_stub = "*Your answer here.*"

c.Execute.timeout = 120  # seconds that a cell of a submission may take
c.Execute.extra_arguments = [
    "--HistoryManager.hist_file=:memory:",
    "--IPKernelApp.log_level=ERROR",
]
