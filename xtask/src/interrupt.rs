//! SIGINT and SIGTERM end what is waited for, not this program: the command fails, its error goes up, and everything that
//! was made is taken back on the way, as after any other failure. A second signal leaves at once.
//!
//! What runs beside us (daemons, servers) is started in a process group of its own, so that a terminal's ^C reaches only
//! what is waited for, and cleaning up finds the daemons alive that it needs.

use std::cell::Cell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::signal::unix::{SignalKind, signal};

/// Between asking what is waited for to end and ending it.
const PATIENCE: Duration = Duration::from_secs(2);
/// As a shell has it for SIGINT.
const LEFT: i32 = 130;

static ENDING: AtomicBool = AtomicBool::new(false);
/// What is waited for, by handles that never lead to another process.
static WAITED_FOR: Mutex<Vec<Arc<OwnedFd>>> = Mutex::new(Vec::new());

thread_local! {
    static CLEANING: Cell<u32> = const { Cell::new(0) };
}

/// Listens from now on.
pub fn listen() -> Result<()> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(wait(&ready)),
            Err(error) => Err(error),
        };
        // Nobody hears it where the failure came later than the first word.
        let _ = ready.send(outcome);
    });
    is_ready.recv()?.context("cannot listen for signals")
}

async fn wait(ready: &std::sync::mpsc::Sender<std::io::Result<()>>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _ = ready.send(Ok(()));
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if ENDING.swap(true, Ordering::SeqCst) {
            eprintln!("xtask: leaving at once; what was made stays");
            std::process::exit(LEFT);
        }
        eprintln!("xtask: taking back what was made; once more to leave at once");
        end_all(Signal::TERM);
        tokio::spawn(async {
            tokio::time::sleep(PATIENCE).await;
            end_all(Signal::KILL);
        });
    }
}

fn waited_for() -> std::sync::MutexGuard<'static, Vec<Arc<OwnedFd>>> {
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end_all(signal: Signal) {
    for process in waited_for().iter() {
        // One that has ended is what was wanted.
        let _ = rustix::process::pidfd_send_signal(process, signal);
    }
}

/// An error once a signal has come, except where things are taken back.
pub fn check() -> Result<()> {
    if ENDING.load(Ordering::SeqCst) && CLEANING.get() == 0 {
        bail!("interrupted");
    }
    Ok(())
}

/// While it lives, the process ends with a signal that comes to us. What takes things back is let alone.
#[must_use]
pub struct Watched(Option<Arc<OwnedFd>>);

impl Watched {
    pub fn new(child: &Child) -> Watched {
        if CLEANING.get() > 0 {
            return Watched(None);
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let process = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(process) = process.map(Arc::new) else {
            return Watched(None);
        };
        let mut all = waited_for();
        all.push(Arc::clone(&process));
        if ENDING.load(Ordering::SeqCst) {
            // The signal came before it was known.
            let _ = rustix::process::pidfd_send_signal(process.as_fd(), Signal::TERM);
        }
        Watched(Some(process))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            waited_for().retain(|other| !Arc::ptr_eq(other, process));
        }
    }
}

/// While it lives, this thread takes things back: its commands run whatever signals have come.
#[must_use]
pub struct Cleaning(());

impl Cleaning {
    pub fn begin() -> Cleaning {
        CLEANING.set(CLEANING.get() + 1);
        Cleaning(())
    }
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        CLEANING.set(CLEANING.get().saturating_sub(1));
    }
}
