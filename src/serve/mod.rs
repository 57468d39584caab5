//! Serving: listeners, TLS, HTTP, and the one driver that runs every session on a WebSocket.
