"""What tests of commands may use beside the fixtures of the connector."""

from tests.engines import engine_of_the_module, pytest_generate_tests

__all__ = ["engine_of_the_module", "pytest_generate_tests"]
