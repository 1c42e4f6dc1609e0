"""The client side of HTTP: calls sent, retried, recorded and read."""
