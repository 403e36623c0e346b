"""One browser for all tests of pages."""

from browser import browser as browser  # a fixture
