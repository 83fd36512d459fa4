"""The schema of the PostgreSQL store, one numbered file per step; each only adds, so that running brokers go on."""
