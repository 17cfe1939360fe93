"""A small process that actors are forked from: pytest, with all that it has imported, is slow to fork."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_pipes: list[int] = []


class Nursery:
    """The one end: calls functions of modules in this folder over there."""

    def __init__(self) -> None:
        code = "import sys; sys.path.insert(0, sys.argv[1]); import nursery; nursery.serve()"
        command = [sys.executable, "-W", "error", "-c", code, str(Path(__file__).parent)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; raises what it raises."""
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((function, arguments), self._process.stdin)
        self._process.stdin.flush()
        answer, error = pickle.load(self._process.stdout)
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=10)


def serve() -> None:
    """The other end: answers until nobody asks any more."""
    _pipes.extend((os.dup(0), os.dup(1)))
    os.dup2(2, 1)  # what actors print is no answer
    with os.fdopen(_pipes[0], "rb") as questions, os.fdopen(_pipes[1], "wb") as answers:
        while True:
            try:
                function, arguments = pickle.load(questions)
                answer = function(*arguments), None
            except EOFError:
                return
            except Exception as error:
                answer = None, error
            pickle.dump(answer, answers)
            answers.flush()


def leave() -> None:
    """Called by a fork: it answers no questions, and does not keep the pipes open either."""
    for descriptor in (0, *_pipes):
        os.close(descriptor)
