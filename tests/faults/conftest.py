"""The miniature project, which the faults meet."""

from tests.integration.conftest import reproduced

__all__ = ["reproduced"]
