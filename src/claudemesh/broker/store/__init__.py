"""What the broker keeps: mailboxes, rosters, cards, attestations, presence and the audit log."""
