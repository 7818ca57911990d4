"""The command `npflows`: fit, score, sample, info, verify and plot for tables in files, convert, export, and a
demonstration."""

from npflows.cli.command import main

__all__ = ["main"]
