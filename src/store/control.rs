//! The socket beside an open store, through which its owner may ask the broker for a copy.
//!
//! ```text
//!   backup PATH\n  ──►
//!                  ◄──  ok\n   or   error TEXT\n
//! ```

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk::FILE_NAME;
use super::{StoreError, StoreHandle};
use crate::thread;

/// The socket of an open store, and the thread `control` that serves it. It ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The socket beside the store in this file: `control` in a directory that is the store's own, else `FILE.control`.
#[must_use]
pub fn control_path(file: &Path) -> PathBuf {
    if file.file_name().is_some_and(|name| name == FILE_NAME) {
        return file.with_file_name("control");
    }
    let mut path = file.as_os_str().to_owned();
    path.push(".control");
    path.into()
}

/// Asks the broker that has the store in `file` open for a copy of it at `to`, which must not exist. The path is taken as
/// the broker's, so it must be absolute. `None`: no broker answers there.
///
/// # Errors
/// [`StoreError::Refused`] with what the broker says; [`StoreError::Open`]: the socket cannot be used.
///
/// # Blocking
/// Until the copy is written.
pub fn request_backup(file: &Path, to: &Path) -> Option<Result<(), StoreError>> {
    let path = control_path(file);
    let failed = |error| StoreError::Open(Box::new((path.clone(), error)));
    let stream = match UnixStream::connect(&path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return None;
        }
        stream => stream,
    };
    let answer = stream.and_then(|stream| ask(stream, to));
    Some(match answer.as_deref().map(str::trim_end) {
        Ok("ok") => Ok(()),
        Ok("") => Err(StoreError::Refused("the broker is stopping".into())),
        Ok(text) => {
            let text = text.strip_prefix("error ").unwrap_or(text);
            Err(StoreError::Refused(text.into()))
        }
        Err(_) => answer.map(drop).map_err(failed),
    })
}

fn ask(mut stream: UnixStream, to: &Path) -> io::Result<String> {
    let path = to.as_os_str().as_bytes();
    stream.write_all(&[b"backup ", path, b"\n"].concat())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

impl Control {
    /// Opens the socket beside the store in `file`, for the user of this process and root alone.
    ///
    /// # Errors
    /// The socket cannot be made, or the thread not be started.
    pub fn start<R: Send + 'static>(file: &Path, handle: StoreHandle<R>) -> io::Result<Self> {
        let path = control_path(file);
        // The store's lock is ours: a socket that is there is one that nobody serves any more.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stopping);
        let thread = thread::spawn("control", 0, move || {
            for stream in listener.incoming() {
                if stops.load(Ordering::Acquire) {
                    return;
                }
                if let Err(error) = stream.and_then(|stream| serve(&stream, &handle)) {
                    log::warn!("control socket: {error}");
                }
            }
        })?;
        Ok(Self {
            path,
            stopping,
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    /// Waits until a copy that is being written is complete.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve<R>(mut stream: &UnixStream, handle: &StoreHandle<R>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    if !peer.is_root() && peer != rustix::process::geteuid() {
        return stream.write_all(b"error you are not the user of the broker\n");
    }
    stream.set_read_timeout(Some(REQUEST_TIME))?;
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_REQUEST_BYTES)).read_until(b'\n', &mut line)?;
    let request = line.strip_suffix(b"\n");
    let Some(path) = request.and_then(|line| line.strip_prefix(b"backup ")) else {
        return stream.write_all(b"error unknown request\n");
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    if !path.is_absolute() {
        return stream.write_all(b"error the path is not absolute\n");
    }
    log::info!("the store is being copied to {}", path.display());
    let (reply, replied) = crossbeam_channel::bounded(1);
    let to = path.to_owned();
    handle.snapshot(to, Box::new(move |result| drop(reply.send(result))));
    // BLOCKS: until the copy is written, or the store has ended.
    let answer = match replied.recv() {
        Ok(Ok(())) => {
            log::info!("the store is copied to {}", path.display());
            "ok\n".to_owned()
        }
        Ok(Err(error)) => {
            log::warn!("the store is not copied to {}: {error}", path.display());
            format!("error {}\n", error.to_string().replace('\n', " "))
        }
        Err(_) => return Ok(()),
    };
    stream.write_all(answer.as_bytes())
}

/// How long a request and its answer may take on their way.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const MAX_REQUEST_BYTES: u64 = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::Directory;
    use crate::store::{DiskStore, Durability, channel};

    #[test]
    fn a_copy_is_made_while_the_store_is_open() {
        let directory = Directory::new();
        let file = directory.file(FILE_NAME);
        let copy = directory.file("copy.redb");
        assert!(request_backup(&file, &copy).is_none());
        let store = DiskStore::open(&file).unwrap();
        let (handle, inbox) = channel::<()>();
        let serving = thread::spawn_critical("store", move || {
            inbox.run(Box::new(store), Durability::Group, Arc::new(|_| {}));
        });
        let control = Control::start(&file, handle.clone()).unwrap();
        let mode = fs::metadata(control_path(&file)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        request_backup(&file, &copy).unwrap().unwrap();
        let again = request_backup(&file, &copy).unwrap().unwrap_err();
        assert!(again.to_string().contains("exists already"), "{again}");
        let relative = request_backup(&file, Path::new("x")).unwrap();
        assert!(relative.unwrap_err().to_string().contains("not absolute"));
        DiskStore::open_existing(&copy).unwrap();
        handle.stop();
        serving.unwrap().join().unwrap();
        let late = request_backup(&file, &directory.file("late")).unwrap();
        assert!(late.unwrap_err().to_string().contains("stopping"));
        drop(control);
        assert!(request_backup(&file, &copy).is_none());
        assert!(!control_path(&file).exists());
    }

    #[test]
    fn the_socket_is_named_after_a_file_that_has_a_name_of_its_own() {
        let path = |file| control_path(Path::new(file));
        assert_eq!(path("/d/store.redb"), Path::new("/d/control"));
        assert_eq!(path("/d/x.db"), Path::new("/d/x.db.control"));
    }
}
