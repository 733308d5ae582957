"""Whether the modules that every request passes are compiled, see `hatch_build.py`."""

from redserve.batching import waiting

IS_COMPILED = not waiting.__file__.endswith(".py")
"""Compiled modules do the same as the Python they are made of, faster; no class in them can be derived from."""
