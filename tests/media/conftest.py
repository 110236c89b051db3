"""Fixtures of the media tests."""

from pathlib import Path

import pytest
from media_files import MediaMaker


@pytest.fixture
def make(tmp_path: Path) -> MediaMaker:
    """Writes media files into the test's own folder."""
    return MediaMaker(tmp_path)
