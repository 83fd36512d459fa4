"""The rules of the wire without I/O: bytes, events and `now` in; bytes, actions and deadlines out."""
