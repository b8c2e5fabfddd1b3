"""The paper's claims as questions to runs of our own: settings, tables, answers.

One module for each question: it says what is run, measures one run, and answers from the rows of
all runs by the rules that ``settings`` fixes. Figures of the rows are in ``mrviz.figures.paper``,
the command is ``mrviz study paper``.
"""

from mrviz.paper.answer import Answer
from mrviz.paper.study import QUESTIONS, Question, about, answers, load, run

__all__ = ["QUESTIONS", "Answer", "Question", "about", "answers", "load", "run"]
