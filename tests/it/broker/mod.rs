//! The broker from outside: bytes in, bytes out.

mod connect;
