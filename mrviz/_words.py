"""Numbers with their nouns and verbs."""


def counted(n: float, noun: str) -> str:
    """A number and its noun, in the plural unless it is one.

    Example:
        >>> counted(1, "step"), counted(0, "step"), counted(1500, "step")
        ('1 step', '0 steps', '1,500 steps')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def verb(n: float, one: str, several: str) -> str:
    """The form of a verb that goes with a number.

    Example:
        >>> verb(1, "is", "are"), verb(2, "is", "are")
        ('is', 'are')
    """
    return one if n == 1 else several
