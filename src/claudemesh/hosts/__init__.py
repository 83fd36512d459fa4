"""Hosts: the programs that agents run in, and how a message gets before the model of a session that runs in one."""
