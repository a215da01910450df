"""The contract suite's assertions explain themselves like those of the tests."""

import pytest

pytest.register_assert_rewrite("tests.channels_out.contract")
