//! SIGHUP: the configuration is read again, and a running daemon takes over what it can.
//!
//! All or nothing: a file that cannot be read, has an unknown key or a value that cannot be used leaves every setting as it
//! was, and the log says why.

use engine::Engine;

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
        if let Err(error) = self.engine.reload(next.live()) {
            tracing::error!(
                "the configuration was not reloaded, the old settings stay: {}",
                error.message
            );
            return;
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
