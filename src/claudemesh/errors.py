"""The error tree. Every code has a row in docs/spec/errors.md and is never reused.

ClaudemeshError                 whose fault · what took effect
├── Invalid                     bytes from outside break a rule · nothing
│   ├── Malformed                 encoding, field set, size, padding
│   ├── BadSignature              a signature or its signer is wrong
│   ├── Unopenable                no key of ours opens it
│   ├── RosterRefused             a roster entry breaks a rule of the log
│   ├── EnvelopeRefused           an opened message contradicts its envelope, the roster or the clock
│   ├── EpochRefused              a channel's epoch was made or handed on against the rules
│   └── LinkRefused               an invite link cannot be used
├── RosterConflict              the broker contradicts itself · the mesh is frozen, with proof
├── Refused                     the other side said no · nothing (or as `took_effect` says)
├── Unreachable                 nobody answered · unknown to the far side, queued here if it says so
├── AddressError                a name resolves to no peer, or to several · nothing
└── LocalError                  this machine: config, daemon, disk, usage · nothing
"""

from typing import ClassVar


class ClaudemeshError(Exception):
    """Any failure of claudemesh that a person or program may have to act on."""

    CODES: ClassVar[dict[str, str]] = {}
    """Every code that this class may carry, with the hint for a person."""
    RETRYABLE: ClassVar[frozenset[str]] = frozenset()
    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, detail: str = "", *, retry_after_ms: int | None = None) -> None:
        if code not in self.CODES:
            raise AssertionError(f"{type(self).__name__} has no code {code!r}")
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a change."""
        return self.code in self.RETRYABLE

    def hint(self) -> str:
        """What a person can do next, one sentence."""
        return self.CODES[self.code]


class Invalid(ClaudemeshError):
    """Bytes from outside break a rule of the protocol. Nothing took effect."""

    exit_code = 7


class Malformed(Invalid):
    """The bytes are not what the layout says. Nothing was read from them."""

    CODES: ClassVar[dict[str, str]] = {
        "cj_top": "A signed statement must be a JSON object.",
        "cj_key": "A key of a signed statement has a character that is not allowed.",
        "cj_type": "A signed statement holds a null, a float or another value that is not allowed.",
        "cj_int": "An integer is outside the safe range of ±(2^53 − 1).",
        "cj_str": "A string of a signed statement is too long or not plain printable ASCII.",
        "cj_depth": "A signed statement is nested too deeply.",
        "cj_dup": "A key stands twice in a signed statement.",
        "cj_len": "A signed statement is longer than its kind allows.",
        "cj_syntax": "The bytes are not JSON.",
        "cj_noncanon": "The bytes are not the canonical encoding of their value.",
        "field": "A field is missing or unknown; the other side may run a newer version: upgrade claudemesh.",
        "field_type": "A field has a value of the wrong type.",
        "b64": "The text is not unpadded base64url.",
        "pad": "The padding of a decrypted message is wrong.",
        "frame": "The frame of a decrypted message is wrong.",
        "stmt": "A signed statement is not of the expected form or signer.",
        "bad_frame": "The frame is not a message of this protocol.",
        "unknown_type": "The frame has a type that this version does not know: upgrade claudemesh.",
        "too_large": "The frame or message is larger than the protocol allows: send less at a time.",
        "backup_magic": "The file is not a claudemesh backup.",
        "backup_params": "The backup asks for more memory or time than is safe; it may be damaged or hostile.",
    }


class BadSignature(Invalid):
    """A signature does not match its bytes or its signer. Nothing was believed."""

    CODES: ClassVar[dict[str, str]] = {
        "bad_sig": "A signature does not verify; the sender or the broker may be tampering.",
        "sig_form": "A signature is not 64 bytes of lowercase hex.",
        "sig_missing": "A required signature is missing.",
        "sig_extra": "There is a signature that the rules do not ask for.",
    }


class Unopenable(Invalid):
    """No key that we hold opens the ciphertext. Nothing was read; no other key is tried."""

    CODES: ClassVar[dict[str, str]] = {
        "box_open": "The message was not encrypted to this peer by that sender, or was altered on the way.",
        "secretbox_open": "The ciphertext does not open with the key that it names, or the passphrase is wrong.",
        "stale_key": "The message was encrypted to a key that this peer no longer holds; the sender will be told.",
        "no_epoch_key": "The message is of an epoch whose secret this peer does not hold; it asks for it if it may.",
    }


class RosterRefused(Invalid):
    """A roster entry breaks a rule of the log. It was not applied."""

    CODES: ClassVar[dict[str, str]] = {
        "entry_form": "A roster entry has the wrong form.",
        "unknown_op": "The roster has an operation that this version does not know: upgrade claudemesh.",
        "seq": "The entry does not follow the end of the roster.",
        "prev": "The entry was made for another head of the roster.",
        "mesh": "The entry belongs to another mesh.",
        "genesis": "The first entry of the roster is not a valid genesis.",
        "time_back": "The entry is dated before the entries that it follows.",
        "future_entry": "The entry is dated in the future; check the clock of this machine.",
        "denied": "The rules of the mesh do not allow this operation to its author.",
        "log_full": "The roster has reached the largest size that is supported.",
    }


class EnvelopeRefused(Invalid):
    """An opened message contradicts its envelope, the roster or the clock. It was not surfaced."""

    CODES: ClassVar[dict[str, str]] = {
        "att": "The session's attestation is of another mesh or signer.",
        "att_ttl": "The session's attestation lasts longer than is allowed.",
        "att_expired": "The message lies outside the lifetime of the session that signed it.",
        "cap": "The session is not allowed to send this kind of message.",
        "session_dead": "The session that signed the message was ended by its peer.",
        "not_a_member": "The sender is not an active peer of this mesh.",
        "misdirected": "The message was signed for another mesh, peer, session or key.",
        "time": "The message is expired, too old, or dated in the future; check the clocks.",
        "too_early": "The message is scheduled for later than now.",
        "replay": "The message was received before.",
        "unproven_roster_claim": "The sender names a roster head that no broker signature proves.",
        "other_branch": "The sender follows a history of the roster that was decided against here (`mesh trust`).",
        "unsupported_content": "The message has a content type that this version does not handle.",
        "not_in_channel": "The sender is not in the channel.",
        "epoch_from_future": "The sender names a roster that is older than the epoch it used.",
    }


class EpochRefused(Invalid):
    """An epoch of a channel was made or handed on against the rules. Nothing is read or sent with it."""

    CODES: ClassVar[dict[str, str]] = {
        "epoch": "The record of an epoch is of another mesh, or of something that has no epochs.",
        "epoch_author": "The epoch was made by a session or peer that was not entitled to.",
        "epoch_commit": "The secret is not the one that the epoch commits to; the rotator may be cheating.",
        "no_slot": "The epoch came without its secret for this peer; it is asked for, or a new epoch is made.",
        "not_entitled": "The peer that asks for the epoch's secret was not in the channel when it was made.",
    }


class LinkRefused(Invalid):
    """An invite link cannot be used. Nothing was joined."""

    exit_code = 5
    CODES: ClassVar[dict[str, str]] = {
        "link_form": "The link is damaged: ask for it again, or copy it whole, without the text around it.",
        "wrong_mesh": "The broker answered with another mesh than the link names: do not trust this broker.",
        "no_grant": "The mesh holds no invite for this link: it was never issued, or the broker hides it.",
        "invite_expired": "The link has expired: ask the person who sent it for a new one.",
        "invite_exhausted": "The link has been used as often as it allows: ask for a new one.",
        "invite_revoked": "The link was revoked: ask the person who sent it for a new one.",
        "already_member": "This device is a peer of that mesh already.",
    }


class RosterConflict(ClaudemeshError):
    """The broker signed two histories. Sending in this mesh is frozen and the proof is kept."""

    exit_code = 7
    CODES: ClassVar[dict[str, str]] = {
        "fork": "The broker showed two peers different rosters. Compare heads with the other peer by voice.",
        "rollback": "The broker took back roster entries that it had signed. Ask its operator what happened.",
        "withheld": "The broker hides roster entries that it has signed. Compare heads with the other peer by voice.",
        "frozen": "This mesh is frozen since the broker contradicted itself; see `claudemesh mesh heads`.",
    }


class AuditConflict(ClaudemeshError):
    """The broker's audit log contradicts itself or what the broker has signed. What was verified before stands."""

    exit_code = 7
    CODES: ClassVar[dict[str, str]] = {
        "audit_chain": "Rows of the broker's audit log were changed or removed. Ask its operator what happened.",
        "audit_checkpoint": "The broker's audit log does not end where its signed checkpoint says.",
        "audit_receipt": "The broker's audit log does not hold a message as the broker acknowledged it.",
        "audit_truncated": "The broker's audit log is shorter than what the broker has acknowledged before.",
    }


class HandshakeRefused(Invalid):
    """The other end of a link is not who it must be. The link was closed before anything was sent over it."""

    CODES: ClassVar[dict[str, str]] = {
        "origin": "The broker's challenge is for another address: somebody relays it. Check the broker's URL.",
        "broker_key": "The broker has another key than the mesh's roster names. Do not trust it.",
        "hello": "The hello does not belong to the session that presents it.",
        "hello_binding": "The hello answers another challenge, broker or address.",
        "handshake_state": "The frame is not allowed before the handshake is complete.",
        "handshake_timeout": "The handshake was not completed in time.",
        "clock": "This machine's clock and the broker's differ by minutes: set the one that is wrong.",
    }


class Refused(ClaudemeshError):
    """The broker or the recipient said no. Nothing was stored; after `storage`, that is not known for certain."""

    exit_code = 5
    CODES: ClassVar[dict[str, str]] = {
        "cas": "The roster moved on meanwhile; the operation is repeated on the new head.",
        "stale_roster": "The roster moved on since the message was sealed; it is sealed again.",
        "unknown_mesh": "The broker does not hold this mesh.",
        "unknown_peer": "The recipient is not an active peer of the mesh.",
        "mailbox_full": "Too much waits for the recipient, or for its whole mesh: wait until it is online.",
        "rate_limited": "Too many requests in a short time; it is repeated later.",
        "mesh_creation_closed": "This broker does not let anybody create a mesh: ask its operator.",
        "limit": "A limit of the broker is reached; docs/spec/limits.md names them.",
        "moved": "The mesh has moved to another broker.",
        "draining": "The broker is shutting down; the peer reconnects by itself.",
        "storage": "The broker cannot store anything now, for example because its disk is full.",
        "invalid": "The broker found the request invalid.",
        "revoked": "The recipient was removed from the mesh before it fetched the message.",
        "removed": "An owner can send you a new link; before you use it, `claudemesh mesh leave MESH --forget`.",
        "not_supported": "The other side does not support this request.",
        "blocked": "The recipient has blocked you: talk to the person by another way.",
        "not_granted": "The recipient has not granted this to you; it can with `claudemesh grant`.",
        "declined": "The message was held, and a person at the recipient did not want it: ask that person first.",
        "hold_full": "Too many of your messages wait for a person at the recipient: stop sending, and ask that person.",
    }
    RETRYABLE = frozenset({"cas", "stale_roster", "mailbox_full", "rate_limited", "draining", "storage"})


class Unreachable(ClaudemeshError):
    """Nobody answered in time. Whether the far side acted is unknown; what was queued here stays queued."""

    exit_code = 6
    CODES: ClassVar[dict[str, str]] = {
        "broker_unreachable": "The broker does not answer: check its URL and the network with `claudemesh doctor`.",
        "link_lost": "The link to the broker was lost; it is re-opened by itself.",
        "timeout": "The stage was not reached in time; see `claudemesh message ID` for how far it came.",
    }
    RETRYABLE = frozenset({"broker_unreachable", "link_lost", "timeout"})


class AddressError(ClaudemeshError):
    """A name does not resolve to exactly one addressee. Nothing was sent."""

    exit_code = 4
    CODES: ClassVar[dict[str, str]] = {
        "unknown_address": "List the peers with `claudemesh peers`, the channels with `claudemesh channel list`.",
        "ambiguous_address": "Use the longer form of one of the candidates, or the first 8 digits of its key.",
        "name_taken": "A channel has that name, or one that looks the same: choose another.",
        "not_joined": "Only members read and write there: join it, or ask one of them to add you.",
        "unknown_message": "List messages with `claudemesh inbox --all`.",
        "unknown_mesh_alias": "List the meshes with `claudemesh mesh list`.",
        "ambiguous_mesh": "Name the mesh with --mesh; list them with `claudemesh mesh list`.",
        "no_mesh": "Join one with `claudemesh join LINK`, or start one with `claudemesh up`.",
    }


class LocalError(ClaudemeshError):
    """This machine stands in the way: configuration, daemon, disk or usage. Nothing took effect."""

    exit_code = 3
    CODES: ClassVar[dict[str, str]] = {
        "config_mode": "Others can read or change the configuration; make it yours alone with the printed chmod.",
        "config_damaged": "The file is damaged. If it is config.json, move it away, then `claudemesh restore FILE`.",
        "config_locked": "Another claudemesh process holds this directory or database; nodes of one broker need --bus.",
        "node_key": "A node that is alive signs with another key: give every node of a broker the same --key FILE.",
        "config_exists": "There is a configuration already; nothing is overwritten without --force.",
        "session_file": "The session file cannot be used: ask its peer for a new one (`claudemesh session`).",
        "session_expired": "The session's time is over: ask its peer for a new one (`claudemesh session`).",
        "disk": "Nothing can be stored there: look at the path, its owner and the free space, then try again.",
        "host_settings": "Mend the file, or add our entries by hand, then try again.",
        "host_failed": "The agent's program refused; run the same command by hand to see more.",
        "database_unreachable": "The database does not answer: check its URL, that it runs, and the network.",
        "database_refused": "The database refuses this broker: check account, password, database and server version.",
        "journal_damaged": "The local database cannot be read; move it away and restart: the roster is fetched again.",
        "newer_schema": "The database was written by a newer version: upgrade claudemesh.",
        "daemon_unreachable": "The daemon does not answer: see `claudemesh daemon logs`.",
        "daemon_version": "The daemon runs another version: `claudemesh daemon stop`, then try again.",
        "paused": "A person paused the agents of this mesh here: wait, or ask your user for `claudemesh resume`.",
        "budget_spent": "Not sent. Wait some minutes, and ask your user; `claudemesh budget` shows and raises it.",
        "credential": "Take it out and try again; a message that is meant to hold it is sent by `send --allow-secret`.",
        "usage": "See --help.",
        "interrupted": "Interrupted before it was finished.",
        "internal": "This is a defect of claudemesh: please report it with `claudemesh daemon logs`.",
    }


class UsageError(LocalError):
    """The command or request does not make sense as written. Nothing took effect."""

    exit_code = 2
