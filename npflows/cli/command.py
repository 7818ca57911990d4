"""The command: from arguments to an exit status, with one line for whatever is wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from npflows.cli.parser import parser
from npflows.cli.reports import INTERRUPTED, complain
from npflows.core.threads import get_num_threads, set_num_threads


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `npflows`.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 1 if a verification failed, 2 after an error, which is told in one line on standard error, 130
        after Ctrl-C.
    """
    threads = None
    try:
        arguments = parser().parse_args(argv)
        if arguments.threads is not None:
            threads = get_num_threads()
            set_num_threads(arguments.threads)
        with _plain_warnings():
            status = arguments.run(arguments)
            sys.stdout.flush()
            return status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except KeyboardInterrupt:
        return complain("interrupted; nothing was written", INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has enough of it, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return complain(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        return complain(str(error))
    except MemoryError as error:
        return complain(f"out of memory ({error})")
    finally:
        if threads is not None:
            set_num_threads(threads)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings meant for the user in one line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        show = warnings.showwarning

        def show_plainly(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                print(f"npflows: warning: {message}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_plainly
        yield
