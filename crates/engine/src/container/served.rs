//! Published ports that a container's monitor serves: what comes to them over IPv6 and is not translated (see the crate
//! `relay`). It gets them with its launch, and is told which they are by then whenever that may have changed: ports come
//! and go, networks are joined and left, a daemon takes the container over.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use super::owner::{Command, Owner};
use crate::engine::{Engine, blocking};
use crate::error::Error;

impl Owner {
    /// Tells the monitor. A failure costs these ports alone, so it is said in the log; the daemon keeps them from others,
    /// and `network reload` tries again.
    pub(super) async fn tell_served(&mut self) {
        let Ok(monitor) = self.monitor() else { return };
        let mut bindings = self.container.ports.values().flat_map(|bindings| bindings.iter());
        let had = self.serves_unknown || bindings.any(|binding| binding.host_ip.contains(':'));
        let silent = self.container.check_answers().err();
        let (engine, id) = (Arc::clone(&self.engine), self.container.id.clone());
        let told = blocking(move || {
            let Some(served) = engine.networks.served(&id) else {
                return Ok(());
            };
            if served.ports.is_empty() && !had {
                return Ok(());
            }
            let told = match silent {
                Some(silent) => Err(silent),
                None => {
                    let sockets = served.sockets.iter();
                    let sockets: Vec<(usize, BorrowedFd<'_>)> =
                        sockets.map(|(place, socket)| (*place, socket.as_fd())).collect();
                    monitor.relay(&served.ports, &sockets).map_err(Error::from)
                }
            };
            drop(served);
            if told.is_err() {
                engine.networks.hold(&id);
            }
            told
        });
        let told = told.await;
        self.serves_unknown &= told.is_err();
        if let Err(error) = told {
            tracing::warn!(
                container = %self.container.id,
                error = error.message,
                "published ports over IPv6 may lead where they led before; `berth network reload` tries again"
            );
        }
    }
}

impl Engine {
    /// Tells every monitor once more.
    pub(crate) async fn tell_served(&self) {
        let alive = self
            .containers()
            .into_iter()
            .filter(|c| c.state.status.is_alive());
        let handles = alive.filter_map(|c| self.inner.containers.find(c.id.as_str()).ok());
        // Side by side: an owner may be waiting for something.
        let told: Vec<_> = handles
            .map(|handle| tokio::spawn(async move { handle.ask(Command::Served).await }))
            .collect();
        for answer in told {
            // One that is gone meanwhile has no ports.
            let _ = answer.await;
        }
    }
}
