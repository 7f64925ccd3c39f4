"""Plugins of the whole test run; fixtures are in tests/conftest.py."""

pytest_plugins = [
    "tests.plugins.allowed_skips",
    "tests.plugins.coverage",
    "tests.plugins.garbage",
    "tests.plugins.groups",
]
