//! Work nobody waits for: removing the links of stopped containers, and filling the pool of prepared namespaces when
//! it is quiet.
//!
//! One thread, since all of it takes the kernel's one lock for links anyway. It ends when the last handle is dropped.
//! Work that a crash loses is done by the next start, which finds the links by their alias.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sys::netlink::Socket;

use crate::error::Error;
use crate::link;
use crate::prepared::Prepared;

/// How long nothing must have happened before namespaces are prepared: a container that is just starting has the
/// better claim to the processor and to the kernel's link lock.
const QUIET: Duration = Duration::from_millis(15);
/// Pause after a failed attempt to prepare one.
const PAUSE: Duration = Duration::from_secs(5);

enum Job {
    /// Remove these links.
    Links(Vec<String>),
    /// Something was taken from the pool.
    Refill,
    /// Say when all before this is done.
    Settle(Sender<()>),
}

pub(crate) struct Reaper {
    jobs: Option<Mutex<Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    pub(crate) fn start(prepared: Arc<Prepared>) -> Result<Reaper, Error> {
        let socket = Socket::route().map_err(Error::io("open a route socket"))?;
        let (jobs, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || work(&inbox, socket, &prepared))
            .map_err(Error::io("start the thread that removes links"))?;
        Ok(Reaper {
            jobs: Some(Mutex::new(jobs)),
            thread: Some(thread),
        })
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after this sender is gone.
            let _ = jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job);
        }
    }

    pub(crate) fn remove_links(&self, names: Vec<String>) {
        if !names.is_empty() {
            self.send(Job::Links(names));
        }
    }

    pub(crate) fn refill(&self) {
        self.send(Job::Refill);
    }

    pub(crate) fn settle(&self) {
        let (done, wait) = mpsc::channel();
        self.send(Job::Settle(done));
        let _ = wait.recv();
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(inbox: &mpsc::Receiver<Job>, mut socket: Socket, prepared: &Prepared) {
    let mut waiting: Vec<Sender<()>> = Vec::new();
    let mut pause = QUIET;
    loop {
        // Those who wait for us to settle want the pool filled too, and the quiet time skipped.
        let short = prepared.is_short();
        let job = match (short, waiting.is_empty()) {
            (false, true) => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (false, false) => {
                waiting.clear();
                continue;
            }
            (true, true) => inbox.recv_timeout(pause),
            (true, false) => inbox.recv_timeout(Duration::ZERO),
        };
        match job {
            Ok(Job::Links(mut names)) => {
                // Whatever else waits goes into the same batch.
                while let Ok(job) = inbox.try_recv() {
                    match job {
                        Job::Links(more) => names.extend(more),
                        Job::Refill => {}
                        Job::Settle(done) => waiting.push(done),
                    }
                }
                if let Err(failure) = link::remove(&mut socket, &names) {
                    tracing::warn!(?names, %failure, "links of stopped containers could not be removed");
                }
            }
            Ok(Job::Refill) => pause = QUIET,
            Ok(Job::Settle(done)) => waiting.push(done),
            Err(RecvTimeoutError::Timeout) => match prepared.fill(&mut socket) {
                Ok(()) => pause = QUIET,
                Err(error) => {
                    tracing::warn!(%error, "no network namespace could be prepared");
                    pause = PAUSE;
                    waiting.clear();
                }
            },
            Err(RecvTimeoutError::Disconnected) => {
                prepared.drain();
                return;
            }
        }
    }
}
