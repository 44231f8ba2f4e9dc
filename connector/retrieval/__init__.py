"""A network and an index, used as one."""

import semcut.connector.models  # noqa: F401  # says what is not installed
