//! proxy_header.
