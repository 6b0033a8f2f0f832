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

use crate::container::Status;
use crate::engine::Engine;
use crate::error::{Error, Result, chain};

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
    states: Family<Labels<1>, Gauge>,
    objects: Family<Labels<1>, Gauge>,
    content: Gauge,
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
            states: Family::default(),
            objects: Family::default(),
            content: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let daemon = self.registry.sub_registry_with_prefix("engine_daemon");
        let seconds = Unit::Seconds;
        daemon.register_with_unit(
            "container_actions",
            "Time that it takes to process each container action",
            seconds.clone(),
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
            seconds.clone(),
            self.phases.clone(),
        );
        daemon.register(
            "container_states_containers",
            "Count of containers in various states",
            self.states.clone(),
        );
        daemon.register("events", "Events that were published", self.events.clone());
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
        daemon.register("objects", "What the engine keeps, by kind", self.objects.clone());
        daemon.register_with_unit(
            "content",
            "Size of the blobs that are kept for pushing and unpacking",
            Unit::Bytes,
            self.content.clone(),
        );
        self.registry.register_with_unit(
            "http_request_duration",
            "Time from a request to the beginning of its answer",
            seconds,
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
}

impl Engine {
    /// The engine's instruments, for those who have something of their own to count.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Everything as text. Reads directories: belongs on a blocking thread.
    pub fn metrics_text(&self) -> Result<String> {
        let metrics = &self.inner.metrics;
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
