"""A member of a mesh, in process: keys, names, journal and the links to its brokers."""
