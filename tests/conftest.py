"""What all tests share: properties are tried on the same examples every time, so that a failure is one that can be repeated."""

from __future__ import annotations

from hypothesis import settings

from edge.kernels import cache

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Kernels compiled in one process share what they have in common as long as it lives: a third less to compile with an empty cache.
# The full collection of garbage that comes with letting go is left out too: it would look through TensorFlow again for each engine.
cache._forget_shared = lambda: None
