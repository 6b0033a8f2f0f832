//! System calls that somebody else answers for (`SCMP_ACT_NOTIFY`).
//!
//! The kernel gives the listener's descriptor to the process that loads the filter. That process hands it to the
//! caller over the handshake, and the caller to whoever listens at `linux.seccomp.listenerPath`, with the
//! container's state. The socket is connected before the container is made to go on: where nobody listens, nothing
//! is started.
//!
//! Source: OCI runtime-spec config-linux.md "The Container Process State".

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use spec::runtime::{ContainerProcessState, Seccomp, State, VERSION};

use crate::error::{During, LaunchError};

/// The name of the descriptor in the document.
const SECCOMP_FD: &str = "seccompFd";

/// Whom a process's listener goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answerer {
    path: String,
    metadata: String,
}

impl Answerer {
    /// None when the filter asks nobody.
    pub fn of(document: &Seccomp) -> Option<Answerer> {
        super::notifies(document).then(|| Answerer {
            path: document.listener_path.clone().unwrap_or_default(),
            metadata: document.listener_metadata.clone().unwrap_or_default(),
        })
    }

    pub fn connect(&self) -> Result<Listener, LaunchError> {
        let path = &self.path;
        let socket = UnixStream::connect(path).during(&format!("linux.seccomp.listenerPath {path:?}"))?;
        Ok(Listener {
            socket,
            answerer: self.clone(),
        })
    }
}

/// A connection to whom it goes.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixStream,
    answerer: Answerer,
}

impl Listener {
    /// `pid` is the process that has loaded the filter.
    pub fn hand_over(&self, listener: &OwnedFd, pid: i32, state: State) -> Result<(), LaunchError> {
        let document = ContainerProcessState {
            oci_version: VERSION.to_owned(),
            fds: vec![SECCOMP_FD.to_owned()],
            pid,
            metadata: self.answerer.metadata.clone(),
            state,
        };
        let bytes = serde_json::to_vec(&document).unwrap_or_default();
        sys::fd::send_fds(&self.socket, &bytes, &[listener.as_fd()])
            .during(&format!("linux.seccomp.listenerPath {:?}", self.answerer.path))
    }
}
