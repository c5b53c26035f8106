//! A log file that can be rotated, and the names of levels.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::LevelFilter;

/// The level with a name as Python or Rust write it, any case.
pub(crate) fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "off" | "none" => Ok(LevelFilter::Off),
        "critical" | "error" => Ok(LevelFilter::Error),
        "warning" | "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err("use error, warning, info, debug or trace".to_owned()),
    }
}

/// Lets a signal handler ask that the log file be opened again after a rotation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// The next line goes to a newly opened file of the same name.
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A file that is opened again under its name when asked to.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    reopen: Reopen,
}

impl LogFile {
    /// Opens the file, to append to; it is made if it is missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(path: &Path, reopen: Reopen) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: append_to(path)?,
            reopen,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // If the new file cannot be opened, the old one goes on: a line in the wrong place is better than none.
        if self.reopen.0.swap(false, Ordering::Relaxed)
            && let Ok(file) = append_to(&self.path)
        {
            self.file = file;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_left_at_the_next_line() {
        let directory = std::env::temp_dir().join(format!("hbmqtt-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, rotated) = (directory.join("log"), directory.join("log.1"));
        let reopen = Reopen::default();
        let mut file = LogFile::open(&path, reopen.clone()).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &rotated).unwrap();
        file.write_all(b"two\n").unwrap();
        reopen.request();
        file.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read(&rotated).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_level_has_several_names() {
        assert_eq!(level("WARNING"), Ok(LevelFilter::Warn));
        assert_eq!(level("warn"), Ok(LevelFilter::Warn));
        assert!(level("loud").is_err());
    }
}
