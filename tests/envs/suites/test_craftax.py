"""Craftax and Craftax-Classic as streams, against their own functions.

They compile for minutes on CPU, so one program is compiled for several tests.
"""

import pytest

pytest.importorskip("craftax")

pytestmark = pytest.mark.slow
CLASSIC, FULL = "Craftax-Classic-Symbolic-v1", "Craftax-Symbolic-v1"
