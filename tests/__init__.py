"""Tests, in the rooms of what they test; what several of them share lies in ``helpers``."""

import pytest

pytest.register_assert_rewrite("tests.helpers")  # an assertion that fails there shows its values as in a test
