import pytest

from .rig import Rig


@pytest.fixture
def rig():
    """A bridge that is not armed, over joints that follow."""
    return Rig()


@pytest.fixture
def armed(rig):
    return rig.armed()
