//! packet_ids.
