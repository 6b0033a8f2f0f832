//! What the engine counts and times, for Prometheus.
//!
//! Counting is an atomic or two on the way; what can be looked up instead (containers by state, objects in the store) is
//! looked up when somebody asks. Names that Docker's daemon has mean the same here, so its dashboards work.
//!
//! Source: Prometheus text format (OpenMetrics).

use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::container::{Status, total_memory};
use crate::engine::{Engine, Inner};
use crate::error::{Error, Result, chain};
use crate::system::{VERSION, os_release, processors};

/// Before the names of what Docker's daemon counts, too.
const DAEMON: &str = "engine_daemon";
/// Docker's container actions, by its names.
const ACTIONS: [&str; 5] = ["start", "changes", "commit", "create", "delete"];

type Labels<const N: usize> = [(&'static str, String); N];
type Times<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// From a quarter of a millisecond to half a minute.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

/// The engine's instruments.
pub struct Metrics {
    registry: Registry,
    actions: Times<1>,
    phases: Times<1>,
    requests: Times<3>,
    failures: Family<Labels<1>, Counter>,
    events: Counter,
    health_checks: Counter,
    health_checks_failed: Counter,
    health_check_starts: Histogram,
    network_actions: Times<1>,
    image_actions: Times<1>,
    host_info: Times<1>,
    monitors_lost: Counter,
    restarts: Counter,
    log_failures: Counter,
    builds: Counter,
    builds_failed: Family<Labels<1>, Counter>,
    states: Family<Labels<1>, Gauge>,
    objects: Family<Labels<1>, Gauge>,
    content: Gauge,
    subscribers: Gauge,
    engine: Family<Labels<9>, Gauge>,
    processors: Gauge,
    memory: Gauge,
}

/// Times something until it is told how it went.
pub(crate) struct Watch<'a> {
    metrics: &'a Metrics,
    action: &'static str,
    begun: Instant,
}

impl Watch<'_> {
    /// Failures are counted apart, so that quick refusals do not make the engine look fast.
    pub(crate) fn done<T>(self, result: Result<T>) -> Result<T> {
        let label = [("action", self.action.to_owned())];
        match &result {
            Ok(_) => {
                let seconds = self.begun.elapsed().as_secs_f64();
                self.metrics.actions.get_or_create(&label).observe(seconds);
            }
            Err(_) => {
                self.metrics.failures.get_or_create(&label).inc();
            }
        }
        result
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            actions: Family::new_with_constructor(times),
            phases: Family::new_with_constructor(times),
            requests: Family::new_with_constructor(times),
            failures: Family::default(),
            events: Counter::default(),
            health_checks: Counter::default(),
            health_checks_failed: Counter::default(),
            health_check_starts: times(),
            network_actions: Family::new_with_constructor(times),
            image_actions: Family::new_with_constructor(times),
            host_info: Family::new_with_constructor(times),
            monitors_lost: Counter::default(),
            restarts: Counter::default(),
            log_failures: Counter::default(),
            builds: Counter::default(),
            builds_failed: Family::default(),
            states: Family::default(),
            objects: Family::default(),
            content: Gauge::default(),
            subscribers: Gauge::default(),
            engine: Family::default(),
            processors: Gauge::default(),
            memory: Gauge::default(),
        };
        // There before the first of them, so that a first one is seen as one more.
        for action in ACTIONS {
            drop(metrics.actions.get_or_create(&[("action", action.to_owned())]));
        }
        metrics.register_containers();
        metrics.register_engine();
        metrics
    }
}

impl Metrics {
    fn register_containers(&mut self) {
        let daemon = self.registry.sub_registry_with_prefix(DAEMON);
        daemon.register_with_unit(
            "container_actions",
            "Time that it takes to process each container action",
            Unit::Seconds,
            self.actions.clone(),
        );
        daemon.register(
            "container_actions_failed",
            "Container actions that were refused or failed",
            self.failures.clone(),
        );
        daemon.register_with_unit(
            "container_start_phase",
            "Time that each part of a container's start takes",
            Unit::Seconds,
            self.phases.clone(),
        );
        daemon.register(
            "container_states_containers",
            "Count of containers in various states",
            self.states.clone(),
        );
        daemon.register(
            "container_restarts",
            "Containers that their restart policy started again",
            self.restarts.clone(),
        );
        daemon.register(
            "monitors_lost",
            "Monitors that died and left nobody who knows their container's exit code",
            self.monitors_lost.clone(),
        );
        daemon.register(
            "health_checks",
            "Health checks that were run",
            self.health_checks.clone(),
        );
        daemon.register(
            "health_checks_failed",
            "Health checks that failed",
            self.health_checks_failed.clone(),
        );
        daemon.register_with_unit(
            "health_check_start_duration",
            "Time until a health check's program runs",
            Unit::Seconds,
            self.health_check_starts.clone(),
        );
        self.registry.sub_registry_with_prefix("logger").register(
            "log_write_operations_failed",
            "Times that output of a container could not be written to its log",
            self.log_failures.clone(),
        );
        let builder = self.registry.sub_registry_with_prefix("builder");
        builder.register(
            "builds_triggered",
            "Builds of images that were asked for",
            self.builds.clone(),
        );
        builder.register(
            "builds_failed",
            "Builds of images that failed, by Docker's reasons",
            self.builds_failed.clone(),
        );
    }

    fn register_engine(&mut self) {
        let daemon = self.registry.sub_registry_with_prefix(DAEMON);
        daemon.register_with_unit(
            "network_actions",
            "Time that it takes to process each network action",
            Unit::Seconds,
            self.network_actions.clone(),
        );
        daemon.register_with_unit(
            "image_actions",
            "Time that it takes to process each image action",
            Unit::Seconds,
            self.image_actions.clone(),
        );
        daemon.register_with_unit(
            "host_info_functions",
            "Time that it takes to gather what is told of the host",
            Unit::Seconds,
            self.host_info.clone(),
        );
        daemon.register("events", "Events that were published", self.events.clone());
        daemon.register(
            "events_subscribers_total",
            "Clients that follow events now",
            self.subscribers.clone(),
        );
        daemon.register("objects", "What the engine keeps, by kind", self.objects.clone());
        daemon.register_with_unit(
            "content",
            "Size of the blobs that are kept for pushing and unpacking",
            Unit::Bytes,
            self.content.clone(),
        );
        daemon.register_with_unit(
            "engine",
            "The engine and the system that it runs on",
            Unit::Other("info".to_owned()),
            self.engine.clone(),
        );
        daemon.register_with_unit(
            "engine_cpus",
            "Processors that the engine's host has",
            Unit::Other("cpus".to_owned()),
            self.processors.clone(),
        );
        daemon.register_with_unit(
            "engine_memory",
            "Memory that the engine's host has",
            Unit::Bytes,
            self.memory.clone(),
        );
        self.registry.register_with_unit(
            "http_request_duration",
            "Time from a request to the beginning of its answer",
            Unit::Seconds,
            self.requests.clone(),
        );
    }

    /// A request was answered; `route` is the pattern, not the path.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("code", status.to_string()),
        ];
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A build was asked for.
    pub fn build_begun(&self) {
        self.builds.inc();
    }

    /// A build failed for this reason.
    pub fn build_failed(&self, reason: &str) {
        let label = [("reason", reason.to_owned())];
        self.builds_failed.get_or_create(&label).inc();
    }

    /// These are the reasons that there are: each is shown before the first build that fails for it.
    pub fn build_failures(&self, reasons: impl IntoIterator<Item = &'static str>) {
        for reason in reasons {
            drop(self.builds_failed.get_or_create(&[("reason", reason.to_owned())]));
        }
    }

    pub(crate) fn watch(&self, action: &'static str) -> Watch<'_> {
        Watch {
            metrics: self,
            action,
            begun: Instant::now(),
        }
    }

    /// A part of a start is over; gives when the next begins.
    pub(crate) fn phase(&self, name: &'static str, begun: Instant) -> Instant {
        let now = Instant::now();
        let label = [("phase", name.to_owned())];
        self.phases
            .get_or_create(&label)
            .observe((now - begun).as_secs_f64());
        now
    }

    /// For whoever publishes events.
    pub(crate) fn events(&self) -> Counter {
        self.events.clone()
    }

    pub(crate) fn health_check(&self, passed: bool) {
        self.health_checks.inc();
        if !passed {
            self.health_checks_failed.inc();
        }
    }

    /// A health check's program runs, which began to be prepared then.
    pub(crate) fn health_check_started(&self, begun: Instant) {
        self.health_check_starts.observe(begun.elapsed().as_secs_f64());
    }

    /// Something was done about a container's networks: `allocate`, `connect`, `release`.
    pub(crate) fn network_action(&self, action: &str, begun: Instant) {
        observe(&self.network_actions, "action", action, begun);
    }

    /// Something was done about images: `pull`, `push`, `delete`.
    pub(crate) fn image_action(&self, action: &str, begun: Instant) {
        observe(&self.image_actions, "action", action, begun);
    }

    /// The host was asked for what `function` tells.
    pub(crate) fn host_info(&self, function: &str, begun: Instant) {
        observe(&self.host_info, "function", function, begun);
    }

    /// A monitor has died without a word.
    pub(crate) fn monitor_lost(&self) {
        self.monitors_lost.inc();
    }

    /// A restart policy starts a container again.
    pub(crate) fn restart(&self) {
        self.restarts.inc();
    }

    /// A monitor could not write its container's log.
    pub(crate) fn log_failed(&self) {
        self.log_failures.inc();
    }
}

fn observe(times: &Times<1>, label: &'static str, value: &str, begun: Instant) {
    let labels = [(label, value.to_owned())];
    times
        .get_or_create(&labels)
        .observe(begun.elapsed().as_secs_f64());
}

impl Inner {
    /// What the engine and its host are. Docker's labels.
    fn look_at_host(&self) {
        let metrics = &self.metrics;
        let uname = rustix::system::uname();
        let text = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
        let (os, os_version) = os_release();
        let labels = [
            ("version", VERSION.to_owned()),
            ("commit", String::new()),
            ("architecture", text(uname.machine())),
            ("graphdriver", self.store.snapshots().driver().to_owned()),
            ("kernel", text(uname.release())),
            ("os", os),
            ("os_type", "linux".to_owned()),
            ("os_version", os_version),
            ("daemon_id", self.daemon_id.clone()),
        ];
        // The host may be upgraded under the daemon: there is one of them.
        if metrics.engine.get(&labels).is_none() {
            metrics.engine.clear();
            metrics.engine.get_or_create(&labels).set(1);
        }
        metrics.processors.set(processors());
        let memory = i64::try_from(total_memory()).unwrap_or(i64::MAX);
        metrics.memory.set(memory);
    }
}

impl Engine {
    /// The engine's instruments, for those who have something of their own to count.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Everything as text. Reads directories: belongs on a blocking thread.
    pub fn metrics_text(&self) -> Result<String> {
        let metrics = &self.inner.metrics;
        self.inner.look_at_host();
        let subscribers = self.inner.events.followers();
        metrics
            .subscribers
            .set(i64::try_from(subscribers).unwrap_or(i64::MAX));
        let containers = self.containers();
        // Docker's three words.
        let count = |running, paused| {
            let in_state = containers.iter().filter(|c| match c.state.status {
                Status::Running | Status::Restarting => running,
                Status::Paused => paused,
                _ => !running && !paused,
            });
            i64::try_from(in_state.count()).unwrap_or(i64::MAX)
        };
        for (word, number) in [
            ("running", count(true, false)),
            ("paused", count(false, true)),
            ("stopped", count(false, false)),
        ] {
            metrics
                .states
                .get_or_create(&[("state", word.to_owned())])
                .set(number);
        }
        let blobs = self
            .inner
            .store
            .content()
            .list()
            .map_err(|error| Error::internal(chain(&error)))?;
        let bytes: u64 = blobs.iter().map(|(_, size)| size).sum();
        metrics.content.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        for (kind, number) in [
            ("blob", blobs.len()),
            ("snapshot", self.inner.store.snapshots().list()?.len()),
            ("volume", self.inner.volumes.list()?.len()),
            ("network", self.inner.networks.list().len()),
        ] {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            metrics
                .objects
                .get_or_create(&[("kind", kind.to_owned())])
                .set(number);
        }
        let mut text = String::new();
        encode(&mut text, &metrics.registry)
            .map_err(|error| Error::internal(format!("cannot write the metrics: {error}")))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_do_not_count_as_quick_successes() {
        let metrics = Metrics::default();
        metrics.watch("start").done(Ok(())).unwrap();
        metrics
            .watch("start")
            .done::<()>(Err(Error::invalid("no")))
            .unwrap_err();
        metrics.request("GET", "/info", 200, Duration::from_millis(3));
        metrics.phase("network", Instant::now());
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        for line in [
            "engine_daemon_container_actions_seconds_count{action=\"start\"} 1",
            "engine_daemon_container_actions_failed_total{action=\"start\"} 1",
            "engine_daemon_container_start_phase_seconds_count{phase=\"network\"} 1",
            "http_request_duration_seconds_count{method=\"GET\",route=\"/info\",code=\"200\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
