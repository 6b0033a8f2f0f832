//! SIGHUP: the configuration is read again, and a running daemon takes over what it can.
//!
//! All or nothing: a file that cannot be read, has an unknown key or a value that cannot be used leaves every setting as it
//! was, and the log says why.

use std::sync::Arc;

use engine::Engine;

use crate::listen::Identity;
use crate::logging::Level;
use crate::options::Options;
use crate::settings::Settings;

/// Where settings come from, and who follows them.
pub(crate) struct Reloader {
    pub(crate) options: Options,
    /// What the daemon was started with.
    pub(crate) started: Settings,
    pub(crate) engine: Engine,
    pub(crate) level: Level,
    /// Certificates are replaced under their names, so their files are read again, too.
    pub(crate) identity: Option<Arc<Identity>>,
}

impl Reloader {
    pub(crate) async fn reload(&self) {
        let options = self.options.clone();
        // Reading files may block.
        let loaded = tokio::task::spawn_blocking(move || Settings::load(options)).await;
        let next = match loaded {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::error!("the configuration was not reloaded, the old settings stay: {error}");
                return;
            }
            Err(error) => {
                tracing::error!("the configuration was not reloaded, the old settings stay: {error}");
                return;
            }
        };
        let identity = self.identity.clone();
        let certificates =
            tokio::task::spawn_blocking(move || identity.map(|known| known.again()).transpose());
        let certificates = match certificates.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(certificates) => certificates,
            Err(error) => {
                tracing::error!("the configuration was not reloaded, the old settings stay: {error}");
                return;
            }
        };
        if let Err(error) = self.engine.reload(next.live()) {
            tracing::error!(
                "the configuration was not reloaded, the old settings stay: {}",
                error.message
            );
            return;
        }
        if let (Some(identity), Some(next)) = (&self.identity, certificates) {
            identity.take(next);
        }
        self.level.set(&next);
        let waiting = self.started.changed_for_next_start(&next);
        if !waiting.is_empty() {
            tracing::warn!(
                "changed, and taking effect at the next start only: {}",
                waiting.join("; ")
            );
        }
        tracing::info!(debug = next.debug, labels = ?next.labels, "configuration reloaded");
    }
}
