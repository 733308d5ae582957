"""How a job ends before its time, for reasons that no row's answer can tell."""

from redserve.errors import RedserveError


class JobFailed(RedserveError):
    """The job cannot be done, or not go on; one sentence says why."""
