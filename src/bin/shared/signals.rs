//! SIGINT and SIGTERM: stop in an orderly way; a second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// How far the end of the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Running,
    /// A signal came.
    Stopping,
    /// And the main thread has nothing left to do.
    GaveWay,
}

static PROGRESS: Mutex<Progress> = Mutex::new(Progress::Running);
static CHANGED: Condvar = Condvar::new();

/// When SIGINT or SIGTERM comes, runs `stop` on a thread of its own and exits with 130 or 143. The main thread gets
/// `grace` to reach [`give_way`] before that.
///
/// # Errors
/// The system refuses the handlers or the thread.
pub(crate) fn on_stop(grace: Duration, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, status(signal), Arc::clone(&stopping))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    hbmqtt::thread::spawn("signals", 0, move || {
        if let Some(signal) = signals.forever().next() {
            stopping.store(true, Ordering::Relaxed);
            *PROGRESS.lock() = Progress::Stopping;
            stop();
            let mut progress = PROGRESS.lock();
            CHANGED.wait_while_for(&mut progress, |now| *now != Progress::GaveWay, grace);
            log::logger().flush();
            std::process::exit(status(signal));
        }
    })?;
    Ok(())
}

/// Once a signal asked the program to stop, waits for ever: what failed on the main thread failed because of that, and the
/// thread that stops the program ends it. Otherwise returns at once.
pub(crate) fn give_way() {
    let mut progress = PROGRESS.lock();
    if *progress == Progress::Running {
        return;
    }
    *progress = Progress::GaveWay;
    CHANGED.notify_all();
    // BLOCKS: until the process exits.
    loop {
        CHANGED.wait(&mut progress);
    }
}

/// 128 and the signal's number.
fn status(signal: i32) -> i32 {
    if signal == SIGTERM { 143 } else { 130 }
}
