"""What is taken for a credential in a text that is about to leave, and what agents may well write."""

import logging
import socket

import pytest

from claudemesh.errors import LocalError
from claudemesh.peer import credentials
from claudemesh.peer.credentials import MAX_FINDINGS, NOT_CHECKED, Finding, find_credentials, require_no_credentials

# Joined here, so that nobody's scanner takes this file for a leak.
AWS_KEY = "AKIA" + "IOSFODNN7EXAMPLX"
GITHUB = "ghp" + "_" + "16C7e42F292c6912E7710c838347Ae178B4a"
PRIVATE_KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"
URL = "postgres://app:" + "hunter2isgreat" + "@db.internal/app"
ASSIGNED = "password = '" + "correct-horse-battery" + "'"
WEB_TOKEN = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        (AWS_KEY, "AWS Access Key"),
        (GITHUB, "GitHub Token"),
        (PRIVATE_KEY, "Private Key"),
        (URL, "Basic Auth Credentials"),
        (ASSIGNED, "Secret Keyword"),
        (WEB_TOKEN, "JSON Web Token"),
    ],
)
def test_a_credential_is_found_on_its_line(secret: str, kind: str) -> None:
    """In the middle of a text, and of its line."""
    text = f"here is what I have\n\nuse {secret} for it\nthank you"

    assert Finding(3, kind) in find_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the build is green",
        "see commit 2fbd9b1a2fbd9b1a2fbd9b1a2fbd9b1a2fbd9b1a",
        "its key is " + "3f" * 32,
        "api_key = os.environ['API_KEY']  # read it where you need it",
        "def check(password: str) -> bool: return verify(password)",
        "password: ${DB_PASSWORD}",
        "the server listens on 10.0.0.7 and on 93.184.216.34",
        "see https://example.org:8443/path?token=",
    ],
)
def test_what_agents_write_every_day_passes(text: str) -> None:
    """Hashes, keys, addresses, and code that handles credentials without holding one."""
    assert find_credentials(text) == ()


@pytest.mark.parametrize("before", [0, 1, 500, 700, 767, 768, 1_100, 5_000])
def test_a_long_line_hides_nothing(before: int) -> None:
    """A credential is whole in one of the overlapping parts, wherever it begins."""
    text = "x" * before + " " + GITHUB + " " + "y" * 2_000

    assert find_credentials(text) == (Finding(1, "GitHub Token"),)


def test_a_text_that_is_slow_to_check_is_not_let_through() -> None:
    """The detectors' patterns take cubic time on some lines: giving up is a finding."""
    assert find_credentials("secret" * 2_000, max_seconds=0) == (Finding(1, NOT_CHECKED),)


def test_many_findings_are_not_all_named() -> None:
    """The first few are reason enough."""
    assert len(find_credentials("\n".join([AWS_KEY] * 50))) == MAX_FINDINGS


async def test_the_refusal_says_where_and_never_what(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the error, nor its repr, nor a log holds the credential."""
    caplog.set_level(logging.DEBUG)

    with pytest.raises(LocalError) as caught:
        await require_no_credentials(f"first\nkey {GITHUB}")

    assert caught.value.code == "credential"
    assert "line 2" in str(caught.value)
    for told in (str(caught.value), repr(caught.value), caught.value.hint(), caplog.text):
        assert GITHUB not in told
        assert GITHUB[4:] not in told


def test_nothing_is_verified_with_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that asks a service whether a key works would hand it over."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a detector opened a connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert find_credentials("\n".join([AWS_KEY, GITHUB, URL, "aws_secret_key = '" + "wJalrXUtnFEMI/K7MDENG/bPx" * 2]))


def test_the_detectors_are_imported_at_the_first_check_only() -> None:
    """A daemon that checks nothing does not pay for them."""
    assert not any(name.startswith("detect_secrets") for name in vars(credentials))
