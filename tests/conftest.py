"""What holds for every test: threads that sleep while they wait, and no time limit on single examples."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded; 5x faster on a shared machine

from hypothesis import settings

settings.register_profile("house", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("house")
