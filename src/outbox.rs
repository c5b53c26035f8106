//! What waits for one socket.
