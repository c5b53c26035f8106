//! The broker from outside: bytes in, bytes out.

mod connect;
mod publish;
mod retain;
mod session;
mod subscribe;
mod will;
