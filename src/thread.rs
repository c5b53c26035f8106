//! The only caller of [`std::thread`]: threads with a name, a stack size and a count.
//!
//! Three kinds. [`spawn`] gives an ordinary thread. [`spawn_critical`] gives one whose panic ends the process, for threads that own
//! state which nobody else can repair. A [`Pool`] reuses threads, so that a storm of short-lived connections is not a storm of `clone` and
//! `mmap`.
//!
//! No scheduling and no decision about what runs where.

mod bell;

use std::any::Any;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub(crate) use self::bell::Bell;

/// The stack of a thread that serves one connection, in bytes.
///
/// It is address space; only touched pages cost memory. Debug builds need more, because nothing is inlined in a TLS handshake.
pub const CONNECTION_STACK_BYTES: usize = if cfg!(debug_assertions) {
    512 * 1024
} else {
    128 * 1024
};

/// The exit status of the process after a critical thread panicked (`EX_SOFTWARE` of `sysexits.h`).
pub const EXIT_PANIC: i32 = 70;

/// The exit status of the process after the store could not be synced (`EX_IOERR` of `sysexits.h`).
pub const EXIT_STORE: i32 = 74;

/// How long a thread of a [`Pool`] without work waits for the next job.
pub const IDLE_FOR: Duration = Duration::from_secs(10);

/// How long it keeps the name of its last job: where one follows the other at once, naming is not worth a system call.
const NAMED_FOR: Duration = Duration::from_millis(50);

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Memory mappings that are left to everything but threads: one in this many.
const SPARE_MAPPINGS_PART: usize = 16;

/// The number of threads that this module lets the process have; `usize::MAX` where nothing is known of a limit.
///
/// Linux limits the memory mappings of a process (`vm.max_map_count`, 65,530), and each thread takes two for its stack and
/// two more for the stack of the standard library's handler for stack overflows. A process that comes to that limit is
/// ended in the middle of a thread's start, so a thread beyond it is refused before. The limit is looked up once.
///
/// The handler is not installed, and half of the mappings are saved, where the process was started with the signals SEGV
/// and BUS ignored.
#[must_use]
pub fn most() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limit = limit.and_then(|limit| limit.trim().parse().ok());
        limit.map_or(usize::MAX, |limit| most_with(limit, &status))
    })
}

/// What [`most`] is with this many mappings, in a process with this `/proc/self/status`.
fn most_with(mappings: usize, status: &str) -> usize {
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let handles_overflow = caught.is_none_or(|mask| mask & SIGSEGV_BIT != 0);
    let each = if handles_overflow { 4 } else { 2 };
    (mappings - mappings / SPARE_MAPPINGS_PART) / each
}

/// Signal 11 in a mask of `/proc/self/status`.
const SIGSEGV_BIT: u64 = 1 << 10;

/// The number of threads alive that this module started.
#[must_use]
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Starts a thread called `name` with a stack of `stack_bytes` and runs `run` on it. Zero bytes: the default of the standard library.
///
/// The name is cut at the first NUL; Linux shows its first 15 bytes.
///
/// # Errors
/// There are as many as [`most`] allows; the system refuses another thread (`EAGAIN`), or has no memory for the stack.
pub fn spawn<T, F>(name: impl Into<String>, stack_bytes: usize, run: F) -> io::Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let mut name = name.into();
    if let Some(nul) = name.find('\0') {
        name.truncate(nul);
    }
    let mut builder = Builder::new().name(name);
    if stack_bytes > 0 {
        builder = builder.stack_size(stack_bytes);
    }
    let counted = Counted::new()?;
    builder.spawn(move || {
        let _counted = counted;
        run()
    })
}

/// Starts a thread that the process cannot live without, with the standard stack size.
///
/// A panic on it is logged once at error level and ends the process with status [`EXIT_PANIC`].
///
/// # Errors
/// As [`spawn`].
pub fn spawn_critical<F>(name: impl Into<String>, run: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    let name = name.into();
    let thread_name = name.clone();
    spawn(thread_name, 0, move || {
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(run)) {
            log::error!(
                "thread '{name}' panicked, ending the process: {}",
                panic_text(&*panic)
            );
            log::logger().flush();
            std::process::exit(EXIT_PANIC);
        }
    })
}

/// What a panic said, or a stand-in when its payload is no text.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Does nothing for a while: a delay that the caller's own peer has earned, or a pause for lack of memory.
///
/// # Blocking
/// For `duration`.
pub fn rest(duration: Duration) {
    let _ = crossbeam_channel::never::<()>().recv_timeout(duration);
}

/// Threads that are kept for a while after their job and then run another one.
///
/// The number of threads is as large as the number of jobs that run at once: a job never waits for another one. Cloning gives another
/// handle to the same pool. A panicking job is logged and costs nothing but itself.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

impl Pool {
    /// A pool whose threads have a stack of `stack_bytes` and end after `idle_for` without a job.
    #[must_use]
    pub fn new(stack_bytes: usize, idle_for: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                stack_bytes,
                idle_for,
                state: Mutex::new(State::default()),
                job_ended: Condvar::new(),
            }),
        }
    }

    /// The pool of the process, with [`CONNECTION_STACK_BYTES`] and [`IDLE_FOR`]: connections and what belongs to them.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Pool> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(CONNECTION_STACK_BYTES, IDLE_FOR))
    }

    /// Runs `job` at once, on an idle thread or on a new one, which is called `name` as long as it does; soon after, `idle`.
    ///
    /// # Errors
    /// As [`spawn`]; the job is dropped then.
    pub fn run<F>(&self, name: impl Into<Cow<'static, str>>, job: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let job = Job {
            name: name.into(),
            run: Box::new(job),
        };
        let mut state = self.inner.state.lock();
        state.active += 1;
        if let Some(worker) = state.idle.pop_back() {
            drop(state);
            worker.give(Order::Run(job));
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let inner = Arc::clone(&self.inner);
        let started = spawn(job.name.to_string(), self.inner.stack_bytes, move || {
            inner.work(job)
        });
        if let Err(error) = started {
            let mut state = self.inner.state.lock();
            state.active -= 1;
            state.threads -= 1;
            return Err(error);
        }
        Ok(())
    }

    /// The number of jobs that run now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.inner.state.lock().active
    }

    /// The number of threads, idle ones included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.inner.state.lock().threads
    }

    /// Ends the threads that are idle now, without waiting for them.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut self.inner.state.lock().idle);
        for worker in idle {
            worker.give(Order::End);
        }
    }

    /// Waits until no job runs. False when that is not so at `deadline`.
    ///
    /// # Blocking
    /// Until the last job ended, at most until `deadline`. Called from a job of this pool it waits in vain.
    #[must_use]
    pub fn wait_until_inactive(&self, deadline: Instant) -> bool {
        let mut state = self.inner.state.lock();
        while state.active > 0 {
            if self
                .inner
                .job_ended
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                return state.active == 0;
            }
        }
        true
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("Pool")
            .field("active", &state.active)
            .field("threads", &state.threads)
            .finish_non_exhaustive()
    }
}

struct Inner {
    stack_bytes: usize,
    idle_for: Duration,
    state: Mutex<State>,
    job_ended: Condvar,
}

#[derive(Default)]
struct State {
    /// The longest idle first, so that the one whose stack is still warm gets the next job.
    idle: VecDeque<Arc<Worker>>,
    threads: usize,
    active: usize,
}

impl Inner {
    fn work(&self, first: Job) {
        let worker = Arc::new(Worker {
            order: Mutex::new(None),
            bell: Bell::of_light_sleep(),
        });
        let mut job = first;
        let mut called = job.name.clone();
        loop {
            if job.name != called {
                name_this_thread(&job.name);
            }
            called = job.run();
            self.end_job(&worker);
            if worker.waits_in_vain(NAMED_FOR.min(self.idle_for)) {
                called = Cow::Borrowed("idle");
                name_this_thread(&called);
            }
            match self.next_order(&worker) {
                Order::Run(next) => job = next,
                Order::End => break,
            }
        }
        self.state.lock().threads -= 1;
    }

    fn end_job(&self, worker: &Arc<Worker>) {
        let mut state = self.state.lock();
        state.active -= 1;
        state.idle.push_back(Arc::clone(worker));
        if state.active == 0 {
            self.job_ended.notify_all();
        }
    }

    // BLOCKS: on the worker's order until one is given, at most `idle_for` while the worker is listed as idle.
    fn next_order(&self, worker: &Arc<Worker>) -> Order {
        if let Some(order) = worker.take(Some(self.idle_for)) {
            return order;
        }
        let mut state = self.state.lock();
        if let Some(place) = state.idle.iter().position(|idle| Arc::ptr_eq(idle, worker)) {
            state.idle.remove(place);
            return Order::End;
        }
        drop(state);
        // INVARIANT: whoever takes a worker from the list gives it an order.
        worker.take(None).unwrap_or(Order::End)
    }
}

/// A thread of a pool. It waits at a bell and not at a condition variable: those of parking_lot keep some 700 bytes for
/// every thread that ever waited at one. One that is given the next job at once, as where clients come and go, need not be
/// woken for it.
struct Worker {
    order: Mutex<Option<Order>>,
    bell: Bell,
}

impl Worker {
    fn give(&self, order: Order) {
        *self.order.lock() = Some(order);
        self.bell.ring();
    }

    fn take(&self, patience: Option<Duration>) -> Option<Order> {
        self.waits_in_vain_until(patience.map(|patience| now() + patience));
        self.order.lock().take()
    }

    /// Whether no order is given for so long.
    fn waits_in_vain(&self, patience: Duration) -> bool {
        self.waits_in_vain_until(Some(now() + patience))
    }

    fn waits_in_vain_until(&self, deadline: Option<Instant>) -> bool {
        let has_order = || self.order.lock().is_some();
        while !has_order() {
            if deadline.is_some_and(|deadline| now() >= deadline) {
                return true;
            }
            self.bell.wait(deadline, has_order);
        }
        false
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a thread was idle is taken from the clock"
)]
fn now() -> Instant {
    Instant::now()
}

enum Order {
    Run(Job),
    End,
}

struct Job {
    name: Cow<'static, str>,
    run: Box<dyn FnOnce() + Send>,
}

impl Job {
    /// Runs it and returns its name.
    fn run(self) -> Cow<'static, str> {
        let Self { name, run } = self;
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(run)) {
            log::error!("thread '{name}' panicked: {}", panic_text(&*panic));
        }
        name
    }
}

/// The name is for people who look at the process; a failure costs nothing.
fn name_this_thread(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

struct Counted;

impl Counted {
    fn new() -> io::Result<Self> {
        let counted = Self;
        if LIVE.fetch_add(1, Ordering::Relaxed) < most() {
            Ok(counted)
        } else {
            let why = "there are as many threads as vm.max_map_count allows";
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, why))
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of tests are taken from the clock"
)]
mod tests {
    use super::*;

    use crossbeam_channel::bounded;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn an_idle_thread_runs_the_next_job() {
        let pool = Pool::new(CONNECTION_STACK_BYTES, PATIENCE);
        let (ids, seen) = bounded(2);
        for _ in 0..2 {
            let ids = ids.clone();
            pool.run("job", move || {
                ids.send(std::thread::current().id()).unwrap()
            })
            .unwrap();
            assert!(pool.wait_until_inactive(Instant::now() + PATIENCE));
        }
        assert_eq!(seen.recv().unwrap(), seen.recv().unwrap());
        assert_eq!(pool.threads(), 1);
    }

    #[test]
    fn jobs_do_not_wait_for_each_other() {
        let pool = Pool::new(CONNECTION_STACK_BYTES, PATIENCE);
        let (release, released) = bounded::<()>(0);
        for _ in 0..8 {
            let released = released.clone();
            pool.run("job", move || assert!(released.recv().is_err()))
                .unwrap();
        }
        assert_eq!(pool.active(), 8);
        assert_eq!(pool.threads(), 8);
        assert!(!pool.wait_until_inactive(Instant::now()));
        drop(release);
        assert!(pool.wait_until_inactive(Instant::now() + PATIENCE));
    }

    #[test]
    fn threads_end_when_idle_too_long_or_told_to() {
        for idle_for in [Duration::from_millis(1), PATIENCE] {
            let pool = Pool::new(CONNECTION_STACK_BYTES, idle_for);
            for _ in 0..4 {
                pool.run("job", || ()).unwrap();
            }
            assert!(pool.wait_until_inactive(Instant::now() + PATIENCE));
            let deadline = Instant::now() + PATIENCE;
            while pool.threads() > 0 {
                assert!(Instant::now() < deadline, "threads are left");
                if idle_for == PATIENCE {
                    pool.close_idle();
                }
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_panicking_job_costs_nothing_but_itself() {
        let pool = Pool::new(CONNECTION_STACK_BYTES, PATIENCE);
        pool.run("job", || panic!("expected by the test")).unwrap();
        assert!(pool.wait_until_inactive(Instant::now() + PATIENCE));
        let (done, is_done) = bounded(1);
        pool.run("job", move || done.send(()).unwrap()).unwrap();
        is_done.recv_timeout(PATIENCE).unwrap();
        assert_eq!(pool.threads(), 1);
    }

    #[test]
    fn threads_are_limited_by_the_mappings_that_they_take() {
        let caught = "Name:\thbmqtt\nSigIgn:\t0000000000001000\nSigCgt:\t0000000100000440\n";
        assert_eq!(most_with(65_530, caught), 15_358);
        assert_eq!(most_with(65_530, "SigCgt:\t0000000100000000\n"), 30_717);
        assert_eq!(most_with(65_530, ""), 15_358);
        assert!(most() > 100);
    }

    #[test]
    fn a_name_with_a_nul_is_cut() {
        let name = spawn("a\0b", 0, || {
            std::thread::current().name().map(str::to_owned)
        })
        .unwrap()
        .join()
        .unwrap();
        assert_eq!(name.as_deref(), Some("a"));
    }
}
