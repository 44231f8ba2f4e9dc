"""Fixtures for tests of commands, in addition to those in `tests/connector/conftest.py`."""

from tests.engines import engine_of_the_module, pytest_generate_tests

__all__ = ["engine_of_the_module", "pytest_generate_tests"]
