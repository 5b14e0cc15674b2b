"""The one exception a person sees: a line that says what is wrong and what to do."""


class Fa4AsvError(Exception):
    """An expected failure, told in one line and ending in a non-zero exit.

    The message names the value that is wrong and the next step; it starts in lower case.
    """

    exit_code = 2
