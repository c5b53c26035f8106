//! The packets of `tests/vectors`, where every run starts.

use std::fs;
use std::path::Path;

/// The bytes of every line, each once.
pub(crate) fn load() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let mut packets = Vec::new();
    for entry in fs::read_dir(&directory).expect("tests/vectors is a directory") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).expect("a vector file is text");
            packets.extend(text.lines().filter_map(parse));
        }
    }
    packets.sort();
    packets.dedup();
    packets
}

/// The second column of a line: bytes in hex.
fn parse(line: &str) -> Option<Vec<u8>> {
    if line.starts_with('#') {
        return None;
    }
    let bytes = line.split(" | ").nth(1)?;
    bytes
        .split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect()
}
