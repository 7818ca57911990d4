"""Frozen densities behind one integer, for compiled callers: the user's @njit code, C, Fortran and whatever calls them.

A *frame* (frame.py) is a vector of words: addresses of the functions that C may call (entries.py), and all that they read.
Its address is the handle of a density.  evaluation.py is what the entries do, typing.py how compiled Python reaches them,
stubs.py functions without a handle among their arguments.
"""
