//! The secrets of connections in a file, with which Wireshark reads them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use parking_lot::Mutex;
use rustls::KeyLog;

use super::TlsError;

/// One line for each secret, in the form of NSS.
///
/// Source: <https://www.ietf.org/archive/id/draft-thomson-tls-keylogfile-00.html>.
pub(super) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    /// Opens the end of the file, which is made, for its owner alone, if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, TlsError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path);
        file.map(|file| Self(Mutex::new(file)))
            .map_err(|error| TlsError::new(error.to_string()).in_file(path))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        push_hex(&mut line, client_random);
        line.push(' ');
        push_hex(&mut line, secret);
        line.push('\n');
        if let Err(error) = self.0.lock().write_all(line.as_bytes()) {
            log::warn!("a TLS secret cannot be written to the key log: {error}");
        }
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLogFile").finish_non_exhaustive()
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(
                DIGITS
                    .get(usize::from(nibble))
                    .copied()
                    .unwrap_or(b'0')
                    .into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_hexadecimal() {
        let mut text = String::new();
        push_hex(&mut text, &[0, 0x1f, 0xff]);
        assert_eq!(text, "001fff");
    }
}
