//! Delivery state that broker and client share.

pub mod alias;
pub mod incoming;
pub mod keep_alive;
pub mod outgoing;
pub mod packet_ids;

#[cfg(test)]
mod tests;
