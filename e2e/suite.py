"""What the tests of one run know of each other."""

from __future__ import annotations

from datetime import datetime

import pytest

SUITE_BEGAN = pytest.StashKey[datetime]()
"""When the lab was there for the run's tests."""
