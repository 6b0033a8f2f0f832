//! The daemon: configuration, wiring, sockets, signals, and an orderly end.
//!
//! ```text
//!  flags + daemon.json ──> Settings ──> Engine + Builder ──> router ──> listeners (unix, TCP, TLS)
//! ```
//!
//! No container is a child of this process: it may be killed at any instruction, and the next one adopts what
//! it finds. SIGTERM and SIGINT end it after the running requests; SIGHUP reads the configuration again.

mod executor;
mod kernel;
mod listen;
mod logging;
mod metrics;
mod options;
mod reload;
mod rest;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use engine::{Engine, EngineConfig};
use network::NetworkConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use logging::Level;
use options::Options;
use reload::Reloader;
use settings::Settings;

/// How long running requests may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Heaps for all threads together: requests are short and wait for the kernel, not for the allocator.
const HEAPS: i32 = 2;

/// Runs `berth daemon` with its arguments (without the program's name) to its exit code.
pub fn main(args: Vec<std::ffi::OsString>) -> i32 {
    let program = std::ffi::OsString::from("berth daemon");
    let options = match Options::try_parse_from(std::iter::once(program).chain(args)) {
        Ok(options) => options,
        Err(error) => {
            // Help and version are answers, not failures; clap knows which stream they belong to.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let settings = match Settings::load(options.clone()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("berth daemon: unable to configure the daemon: {error}");
            return 1;
        }
    };
    if settings.validate {
        println!("configuration OK");
        return 0;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("berth daemon: the daemon needs root: it makes namespaces, mounts and control groups");
        eprintln!("hint: start it with sudo, or from a service manager");
        return 1;
    }
    sys::memory::share_heaps(HEAPS);
    let level = logging::start(&settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth daemon: cannot start the async runtime: {error}");
            return 1;
        }
    };
    match runtime.block_on(run(settings, options, level)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("berth daemon: {error}");
            1
        }
    }
}

/// Removes the pid file when the daemon ends.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<PidFile, String> {
        let failed = |error: std::io::Error| format!("cannot write the pid file {}: {error}", path.display());
        if let Ok(text) = std::fs::read_to_string(path)
            && let Ok(pid) = text.trim().parse::<u32>()
            && pid != std::process::id()
            // A process that has ended but was not waited for has no command line.
            && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
        {
            return Err(format!(
                "process with PID {pid} is still running: another daemon uses the pid file {}; \
                 stop it or give this one --pidfile",
                path.display()
            ));
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        std::fs::write(path, std::process::id().to_string()).map_err(failed)?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The limits of the build cache on the disk that it lies on.
fn cache_policy(settings: &Settings) -> build::CachePolicy {
    let total = rustix::fs::statvfs(&settings.data_root)
        .map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    settings.build_cache.policy(total)
}

async fn run(settings: Settings, options: Options, level: Level) -> Result<(), String> {
    let signals = Signals::listen()?;
    kernel::check(&settings)?;
    let identity = settings.tls.as_ref().map(listen::Identity::read).transpose()?;
    let _pid = PidFile::write(&settings.pidfile)?;
    let engine = Engine::open(engine_config(&settings))
        .await
        .map_err(|error| error.message)?;
    let shutdown = CancellationToken::new();
    let server = match serve(&settings, &engine, identity.as_ref(), &shutdown).await {
        Ok(server) => server,
        Err(error) => {
            // What refuses to start leaves nothing.
            shutdown.cancel();
            engine.close().await;
            return Err(error);
        }
    };
    engine.serves();
    tracing::info!(root = %settings.data_root.display(), "ready");
    // What the start needed, an idle daemon does not.
    sys::memory::release_unused();
    sys::memory::release_code();
    tokio::spawn(rest::in_pauses(engine.clone(), shutdown.clone()));
    let reloader = Reloader {
        options,
        started: settings,
        engine: engine.clone(),
        level,
        identity,
    };
    signals.wait_for_end(&reloader).await;
    tracing::info!("stopping; containers go on");
    shutdown.cancel();
    if tokio::time::timeout(DRAIN, server.drained()).await.is_err() {
        tracing::warn!("requests were still running when the daemon ended");
    }
    engine.close().await;
    Ok(())
}

/// Has the engine's metrics tell of builds.
fn count_builds(engine: &Engine) -> Arc<build::tally::Counter> {
    let reasons = build::tally::Reason::ALL;
    engine
        .metrics()
        .build_failures(reasons.map(build::tally::Reason::name));
    let engine = engine.clone();
    Arc::new(move |moment: build::tally::Moment| match moment {
        build::tally::Moment::Begun => engine.metrics().build_begun(),
        build::tally::Moment::Failed(reason) => engine.metrics().build_failed(reason.name()),
    })
}

/// Opens everything that clients come to, and only then lets them in.
async fn serve(
    settings: &Settings,
    engine: &Engine,
    identity: Option<&Arc<listen::Identity>>,
    shutdown: &CancellationToken,
) -> Result<api::Server, String> {
    let executor = Arc::new(executor::EngineExecutor::new(engine.clone()));
    let builder = build::Builder::new(engine.images().clone(), engine.store().clone(), executor)
        .map_err(|error| format!("cannot open the build cache: {error}"))?
        .with_policy(cache_policy(settings))
        .counted_by(count_builds(engine));
    let builder = Arc::new(builder);
    let told = {
        let engine = engine.clone();
        Arc::new(move |image: &image::Image, names: &[spec::Reference]| engine.image_built(image, names))
    };
    let buildkit = buildkit::Service::open(builder.clone(), engine.images().clone(), told)
        .map_err(|error| format!("cannot open the directories of building clients: {error}"))?;
    let state = api::AppState::new(engine.clone(), builder, buildkit, shutdown.clone());
    let server = api::Server::new(api::router(state), shutdown.clone());
    let listeners = listen::open(settings, identity).await?;
    if let Some(address) = &settings.metrics_addr {
        metrics::serve(address, engine.clone(), shutdown.clone()).await?;
    }
    let warnings = listeners.iter().filter_map(listen::Listener::warning);
    engine.set_warnings(warnings.map(|warning| format!("WARNING: {warning}")).collect());
    for listener in listeners {
        tracing::info!(address = %listener, "listening");
        tokio::spawn(listener.serve(server.clone(), shutdown.clone()));
    }
    Ok(server)
}

/// Listened for from the start: a signal that comes early waits, and does not end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let failed = |error: std::io::Error| format!("cannot listen for signals: {error}");
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
        })
    }

    /// Until SIGTERM or SIGINT; at SIGHUP the configuration is read again.
    async fn wait_for_end(mut self, reloader: &Reloader) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reloader.reload().await,
            }
        }
    }
}

fn engine_config(settings: &Settings) -> EngineConfig {
    let network = NetworkConfig {
        default_bridge: Some(settings.default_bridge.clone()),
        firewall: settings.iptables,
        publish_address: settings.publish_address,
        respect_host: settings.respect_host,
        address_pools: settings.address_pools.clone(),
        ..NetworkConfig::new(settings.instance.clone(), settings.exec_root.clone())
    };
    EngineConfig {
        root: settings.data_root.clone(),
        storage_driver: settings.storage_driver,
        store_dedup: settings.store_dedup,
        image_ids: settings.image_id,
        run_dir: settings.exec_root.clone(),
        instance: settings.instance.clone(),
        cgroup_driver: settings.cgroup_driver,
        cgroup_parent: settings.cgroup_parent.clone(),
        log_budget: settings.log_budget,
        cdi_spec_dirs: settings.cdi_spec_dirs.clone(),
        selinux: settings.selinux,
        volume_plugins: settings.volume_plugins.clone(),
        userns: settings.userns.clone(),
        network,
        live: settings.live(),
    }
}
