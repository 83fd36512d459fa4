"""The broker: routes ciphertext, orders the roster, queues; it cannot open an envelope."""
