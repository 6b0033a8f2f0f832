//! The daemon's own log: lines on stderr, whose level may change while it runs.

use tracing_subscriber::EnvFilter;

use crate::settings::Settings;

/// Changes the level.
pub(crate) struct Level(Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

impl Level {
    pub(crate) fn set(&self, settings: &Settings) {
        if let Err(error) = (self.0)(EnvFilter::new(settings.level())) {
            tracing::error!("the log level cannot be changed: {error}");
        }
    }
}

pub(crate) fn start(settings: &Settings) -> Level {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(settings.level()))
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // A second subscriber can only be set by tests that call this twice.
    match settings.log_format.as_str() {
        "json" => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Level(Box::new(move |filter| {
                handle.reload(filter).map_err(|error| error.to_string())
            }))
        }
        _ => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Level(Box::new(move |filter| {
                handle.reload(filter).map_err(|error| error.to_string())
            }))
        }
    }
}
