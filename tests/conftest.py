"""What all tests share: properties are tried on the same examples every time, so that a failure is one that can be repeated."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
