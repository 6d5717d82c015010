"""The one error of this package: it carries what happened and what to do about it."""


class StackError(RuntimeError):
    """The local stack cannot do what was asked.

    Args:
        problem: What happened, in one sentence.
        advice: What the reader can do about it.
        log_tail: The last lines of the log that shows the cause, if there is one.
    """

    def __init__(self, problem: str, *, advice: str, log_tail: str = "") -> None:
        self.problem = problem
        self.advice = advice
        self.log_tail = log_tail
        parts = [problem]
        if log_tail:
            parts += ["--- last lines of its log ---", log_tail, "-----------------------------"]
        parts.append(f"What to do: {advice}")
        super().__init__("\n".join(parts))
