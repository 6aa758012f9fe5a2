"""nbgrader without a server: every path below the course folder, a stub that says what to do."""

c = get_config()  # noqa: F821  nbgrader defines it
c.CourseDirectory.course_id = "softprune"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError('write this: the task above "
                              "says what, the cell below whether it is right')"}
c.ClearSolutions.text_stub = "YOUR ANSWER HERE"
c.ExecutePreprocessor.timeout = 60  # a submission that loops costs its author marks, not the run
c.ExecutePreprocessor.interrupt_on_timeout = True
