//! The broker from outside: bytes in, bytes out.

mod auth;
mod connect;
mod publish;
mod retain;
mod session;
mod subscribe;
mod tls;
mod websocket;
mod will;
