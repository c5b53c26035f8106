//! The broker from outside: bytes in, bytes out.

mod abuse;
mod auth;
mod connect;
mod enhanced_auth;
mod expiry;
mod lifecycle;
mod limits;
mod load;
mod log;
mod own_thread;
mod packet_size;
mod privileges;
mod properties;
mod publish;
mod reason_codes;
mod reasons;
mod redirect;
mod responses;
mod retain;
mod session;
mod shared;
mod subscribe;
mod sys;
mod tls;
mod websocket;
mod will;
