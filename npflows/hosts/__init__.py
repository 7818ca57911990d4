"""Flows inside other people's programs.

Nothing here imports the other program before it is used.  `npflows.hosts.jax` and `npflows.hosts.pytensor`, modules, are
imported by their names.
"""
