"""How long to wait before a broker is dialled again."""

from claudemesh.errors import ClaudemeshError, Refused
from claudemesh.peer.runtime import Runtime
from claudemesh.protocol import limits


def redial_after_ms(attempt: int, error: Exception, runtime: Runtime) -> int:
    """Full jitter: many peers of one broker do not come back at the same moment.

    Args:
        attempt: How many links in a row came to nothing; 0 after one that was ready.
        error: Why the last one ended.
    """
    tempo = runtime.tempo
    if isinstance(error, ClaudemeshError) and error.detail in ("moved", "draining") and attempt == 0:
        return int(runtime.jitter() * tempo.reconnect_min_ms)
    if isinstance(error, Refused) and error.code == "revoked":
        # Seldom: brokers count refused handshakes by address, which its neighbours may share.
        return int((1 + runtime.jitter()) / 2 * tempo.removed_retry_ms)
    highest = min(tempo.reconnect_max_ms, tempo.reconnect_min_ms * 2 ** min(attempt, 16))
    wait_ms = int(runtime.jitter() * highest)
    asked_ms = error.retry_after_ms if isinstance(error, ClaudemeshError) else None
    return max(wait_ms, min(asked_ms or 0, limits.MINUTE_MS))
