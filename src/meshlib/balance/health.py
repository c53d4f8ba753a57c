"""What outlier detection knows of one endpoint in one cluster. The rules are in `meshlib.policy.outlier`."""

from __future__ import annotations

__all__ = ["EndpointHealth"]


class EndpointHealth:
    """The outlier state of one endpoint.

    Attributes:
        consecutive: failures since the last success.
        ejected: whether it gets no calls but probes.
        ejected_until: when a probe may be sent; on the monotonic clock.
        ejections: how often it was ejected lately; the ejection time grows with it.
        returned_at: when it last came back.
        probe: the lease of the probe under way; None if there is none.
        probe_since: when that lease was taken.
    """

    __slots__ = ("consecutive", "ejected", "ejected_until", "ejections", "probe", "probe_since", "returned_at")

    def __init__(self) -> None:
        self.consecutive = 0
        self.ejected = False
        self.ejected_until = 0.0
        self.ejections = 0
        self.returned_at = 0.0
        self.probe: object | None = None
        self.probe_since = 0.0
