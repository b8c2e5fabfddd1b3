"""Programs or sources ranked by predicted accuracy, before any of them is trained."""

from mrviz.theory.ranking.rank import rank_programs, rank_sources
from mrviz.theory.ranking.table import Candidate, Ranking

__all__ = ["Candidate", "Ranking", "rank_programs", "rank_sources"]
