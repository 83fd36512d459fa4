"""One process per user: its peers, its journal and the local API that every other program of ours uses."""
