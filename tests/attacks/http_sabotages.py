"""Deliberate breaks of ONE rule of the HTTP server. Nothing but `test_mcp_http` may use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings

from claudemesh.mcp.http import app, connections, link, relay, tokens
from claudemesh.mcp.http.link import Link
from claudemesh.mcp.http.relay import Relay
from claudemesh.mcp.http.tokens import Tokens
from claudemesh.mcp.pump import SENT, WRITTEN
from tests.attacks.http_attacks import VICTIM

WITHOUT_END = 1 << 30


@contextmanager
def nobody_is_asked_for_a_token() -> Iterator[None]:
    """Whoever reaches the port is served."""
    with mock.patch.object(app, "RequireAuthMiddleware", lambda served, required_scopes: served):
        yield


@contextmanager
def any_token_will_do() -> Iterator[None]:
    """Tokens are not compared."""
    with mock.patch.object(tokens.hmac, "compare_digest", return_value=True):
        yield


@contextmanager
def every_name_is_ours() -> Iterator[None]:
    """Neither `Host` nor `Origin` is looked at."""

    def unprotected(**_: Any) -> TransportSecuritySettings:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)

    with mock.patch.object(app, "TransportSecuritySettings", unprotected):
        yield


@contextmanager
def all_clients_are_one() -> Iterator[None]:
    """Whose token it is does not matter."""

    async def verify_token(self: Any, token: str) -> AccessToken:
        return AccessToken(token="", client_id=VICTIM, scopes=[])

    with mock.patch.object(Tokens, "verify_token", verify_token):
        yield


@contextmanager
def a_url_is_a_session() -> Iterator[None]:
    """Whoever dials it."""
    original = relay.session_key

    with mock.patch.object(relay, "session_key", lambda _, options: original(VICTIM, options)):
        yield


@contextmanager
def hooks_are_taken_from_anybody() -> Iterator[None]:
    """As from a host's own pipe."""
    with mock.patch.object(relay, "HOST", "claude-code"):
        yield


@contextmanager
def bodies_have_no_end() -> Iterator[None]:
    """Whatever is sent is read."""
    with mock.patch.object(app, "MAX_BODY_BYTES", WITHOUT_END):
        yield


@contextmanager
def sessions_have_no_end() -> Iterator[None]:
    """As many as anybody wants."""
    with mock.patch.object(relay, "MAX_SESSIONS", WITHOUT_END):
        yield


@contextmanager
def what_was_not_opened_does_not_count() -> Iterator[None]:
    """As if the SDK forgot a session that was never initialized."""
    with mock.patch.object(Relay, "_vacate", lambda self, exchange: self._places.give_back(exchange.client)):
        yield


@contextmanager
def nothing_is_kept_for_others() -> Iterator[None]:
    """Whoever comes first has it all."""
    with mock.patch.multiple(relay, RESERVED_SESSIONS=0, RESERVED_EXCHANGES=0):
        yield


@contextmanager
def connections_have_no_end() -> Iterator[None]:
    """Whoever connects stays, until something is asked."""
    with mock.patch.object(app, "MAX_CONNECTIONS", WITHOUT_END):
        yield


@contextmanager
def a_head_may_take_for_ever() -> Iterator[None]:
    """Nobody looks at the clock."""
    with mock.patch.object(connections, "HEAD_WITHIN_S", WITHOUT_END):
        yield


@contextmanager
def a_body_may_take_for_ever() -> Iterator[None]:
    """Once the head is there."""
    with mock.patch.object(connections, "BODY_WITHIN_S", WITHOUT_END):
        yield


@contextmanager
def subscriptions_have_no_end() -> Iterator[None]:
    """Each one is kept."""
    with mock.patch.object(link, "MAX_SUBSCRIPTIONS", WITHOUT_END):
        yield


@contextmanager
def names_of_resources_have_no_end() -> Iterator[None]:
    """Nor do they."""
    with mock.patch.object(link, "MAX_URI_CHARACTERS", WITHOUT_END):
        yield


@contextmanager
def what_has_left_was_read() -> Iterator[None]:
    """Nobody waits for a sign of the client."""
    with mock.patch.object(Link, "sent", lambda self, _, request: self._say(WRITTEN, request)):
        yield


@contextmanager
def cancellations_change_nothing() -> Iterator[None]:
    """What a client gave up still counts."""
    with mock.patch.object(Link, "forget", return_value=None):
        yield


@contextmanager
def what_nobody_took_has_left() -> Iterator[None]:
    """Whether somebody is there is not asked."""
    with mock.patch.object(Link, "unsent", lambda self, request: self._say(SENT, request)):
        yield
