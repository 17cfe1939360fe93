"""What a run's scores show, computed once per run and stored beside them: bootstrap intervals."""

from __future__ import annotations

from lirastore.evaluation.document import EVALUATION_FORMAT, Evaluation, find, read, write
from lirastore.evaluation.points import OPERATING_POINTS
from lirastore.evaluation.running import EVALUATORS, KINDS, Evaluator, Subject, evaluate
from lirastore.evaluation.stream import Block, Pass

__all__ = [
    "EVALUATION_FORMAT",
    "EVALUATORS",
    "KINDS",
    "OPERATING_POINTS",
    "Block",
    "Evaluation",
    "Evaluator",
    "Pass",
    "Subject",
    "evaluate",
    "find",
    "read",
    "write",
]
