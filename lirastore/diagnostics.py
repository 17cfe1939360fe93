"""Exit codes, and what the command line says when something ends early.

stdout is data; all this goes to stderr.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from lirastore.errors import LirastoreError

DONE = 0
FAILED = 1  # the work failed; the message says why and what to do
# 2: the command was not understood; click's own code
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM


class Terminated(BaseException):
    """SIGTERM as an exception, so that open attempts and temporary files are tidied on the way out."""


def say(message: str) -> None:
    """Prints one line on stderr."""
    click.echo(message, err=True)


def warn(message: str) -> None:
    """Prints one warning on stderr."""
    say(f"warning: {message}")


def run(command: Callable[..., Any]) -> NoReturn:
    """Runs a click command and exits the process with the contract's exit code.

    Errors that this library or the operating system raise on purpose become one message without a
    traceback; anything else is a bug and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.ClickException as wrong:
        wrong.show()
        code = wrong.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("interrupted; what was finished is kept, and the same command carries on from there")
        code = INTERRUPTED
    except Terminated:
        say("terminated; what was finished is kept, and the same command carries on from there")
        code = TERMINATED
    except BrokenPipeError:  # `lirastore query … | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except LirastoreError as failure:
        say(f"error: {failure}")
        code = FAILED
    except OSError as failure:
        say(f"error: {_explain(failure)}")
        code = FAILED
    except MemoryError:
        say("error: out of memory; give a smaller --memory")
        code = FAILED
    sys.exit(code or DONE)


_REMEDIES = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some of the quota and run the command again",
    errno.EACCES: "this needs write permission there",
    errno.EROFS: "this needs a place that can be written",
    errno.ENOENT: "check the path; folders are not made on the way",
}


def _explain(failure: OSError) -> str:
    """What the operating system said, of what, and what to do; committed models are kept in any case."""
    where = f"{failure.filename}: " if failure.filename else ""
    remedy = _REMEDIES.get(failure.errno or 0, "nothing that was committed is lost")
    return f"{where}{failure.strerror or failure}; {remedy}"


def _terminate(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the tidying
    raise Terminated
