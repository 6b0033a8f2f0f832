//! What a build asks of the client that wants it, while it runs: files, secrets, an agent for keys.
//!
//! A build whose request names no [`Client`] has its context in a directory, and no secrets. With one, the context is asked
//! for once everything is planned, so that only what the instructions name has to travel, and steps that need nothing of it
//! do not wait for it.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::error::BuildError;
use crate::patience::Patience;

/// The directory a client keeps for an agent's socket, as long as it is held.
pub trait Agent: Send + Sync {
    /// The socket to be mounted.
    fn socket(&self) -> PathBuf;
}

/// The other end of a build that is under way.
pub trait Client: Debug + Send + Sync + 'static {
    /// The directory that holds `paths` of the context (`None`: all of it) until the client is dropped. Paths may hold
    /// wildcards. What the ignore file leaves out is not there.
    fn context(&self, paths: Option<Vec<String>>) -> BoxFuture<'_, Result<PathBuf, BuildError>>;

    /// The directory of a named context.
    fn named(&self, name: &str) -> BoxFuture<'_, Result<PathBuf, BuildError>>;

    /// A secret by its id; `None` where the client has none of it.
    fn secret(&self, id: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, BuildError>>;

    /// A socket that leads to the client's agent of this id; `None` where the client forwards none. What the agent is asked
    /// through it is asked in the name of `patience`.
    fn agent(
        &self,
        id: &str,
        patience: &Arc<Patience>,
    ) -> BoxFuture<'_, Result<Option<Box<dyn Agent>>, BuildError>>;

    /// The client's login for a registry.
    fn login(&self, host: &str) -> BoxFuture<'_, Option<image::Auth>>;
}
