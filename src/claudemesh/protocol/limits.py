"""Every number of the wire in one place (docs/spec/limits.md; a test compares the two)."""

from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

# Frames and messages
MAX_FRAME_BYTES: Final = 1 << 20
MAX_UNAUTHENTICATED_FRAME_BYTES: Final = 4_096
MAX_UPLOAD_FRAME_BYTES: Final = 512 << 10
"""Before the hello, a frame that uploads roster entries may be larger than the rest."""
MAX_BODY_BYTES: Final = 512 << 10
MAX_HEADER_BYTES: Final = 4_096
MAX_IDS_PER_FRAME: Final = 64
"""Message ids in one `accepted` or `ack`, receipts in one `cm/receipt`."""
MAX_EPOCH_SLOTS: Final = 10_000
"""Members of one channel; their slots fill three quarters of a frame."""
MAX_CONFIRMED: Final = 64
"""Recipients of a post that are accounted for one by one; where there are more, it is known to be accepted."""
MAX_PUSH_BYTES: Final = 256 << 10
MAX_UNACKNOWLEDGED_PUSHES: Final = 256
"""Envelopes leased to one link before it must acknowledge some."""

# Time
CLOCK_SKEW_MS: Final = 5 * MINUTE_MS
HANDSHAKE_SKEW_MS: Final = CLOCK_SKEW_MS // 2
"""Between a peer and its broker, so that any two peers agree within `CLOCK_SKEW_MS`."""
FUTURE_ENTRY_MS: Final = 10 * MINUTE_MS
QUEUE_LIFETIME_MS: Final = 14 * DAY_MS
ATTESTATION_MAX_MS: Final = 7 * DAY_MS
ATTESTATION_DEFAULT_MS: Final = DAY_MS
CARD_ROTATION_MS: Final = 7 * DAY_MS
BOX_SECRET_GRACE_MS: Final = 14 * DAY_MS
INVITE_MAX_MS: Final = 90 * DAY_MS
EPOCH_MAX_MS: Final = 7 * DAY_MS
STALE_HEAD_MS: Final = 10 * MINUTE_MS
WITHHELD_RETRIES: Final = 3
WITHHELD_WINDOW_MS: Final = 30 * SECOND_MS

# Links
HANDSHAKE_TIMEOUT_MS: Final = 5 * SECOND_MS
CHALLENGE_LIFETIME_MS: Final = 30 * SECOND_MS
PING_INTERVAL_MS: Final = 25 * SECOND_MS
PRESENCE_LEASE_MS: Final = 75 * SECOND_MS
REJOIN_GRACE_MS: Final = 90 * SECOND_MS
HEAD_INTERVAL_MS: Final = 60 * SECOND_MS
DRAIN_TIMEOUT_MS: Final = 5 * SECOND_MS
RESEND_AFTER_MS: Final = 15 * SECOND_MS
RECONNECT_MIN_MS: Final = 200
RECONNECT_MAX_MS: Final = 30 * SECOND_MS
REMOVED_RETRY_MS: Final = 10 * MINUTE_MS

# Rates and quotas of the broker
HELLOS_PER_MINUTE_PER_ADDRESS: Final = 10
CLAIMS_PER_MINUTE_PER_INVITE: Final = 10
CLAIMS_PER_MINUTE_PER_ADDRESS: Final = 60
MESSAGES_PER_SECOND: Final = 50
MESSAGES_BURST: Final = 200
MAILBOX_ROWS: Final = 10_000
MAILBOX_BYTES: Final = 256 << 20
APPENDS_PER_MINUTE_PER_PEER: Final = 60
CARD_INTERVAL_MS: Final = 10 * SECOND_MS
EPOCH_INTERVAL_MS: Final = 2 * SECOND_MS
"""Between two epochs that one peer publishes for one scope."""
OPEN_INVITES_PER_ISSUER: Final = 64
CHANNELS_PER_PEER: Final = 256

# Roster
MAX_LOG_ENTRIES: Final = 200_000
MAX_ENTRIES_PER_FRAME: Final = 200
INVITE_USES_MAX: Final = 1_000
DEVICE_LINK_USES_MAX: Final = 5
DEVICE_ALLOWANCE: Final = 5

# Replay
REPLAY_WINDOW: Final = 1_024
REPLAY_STATE_GRACE_MS: Final = 14 * DAY_MS

# Audit
CHECKPOINT_INTERVAL_MS: Final = 10 * MINUTE_MS
AUDIT_ROWS_PER_FRAME: Final = 500
