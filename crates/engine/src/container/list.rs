//! Which containers a client sees: Docker's filters over the published snapshots.

use std::sync::Arc;

use super::{Container, Status, ports};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::filters::{self, Filters};

const KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

impl Engine {
    /// Every container, newest first.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.inner.containers.snapshots()
    }

    /// One container by id, name, or unambiguous start of its id.
    pub fn container(&self, name: &str) -> Result<Arc<Container>> {
        Ok(self.inner.containers.find(name)?.snapshot())
    }

    /// The containers that pass the filters: only running ones unless all or a certain status is asked for, at
    /// most `limit` where that is given.
    pub fn container_list(
        &self,
        filters: &Filters,
        all: bool,
        limit: Option<usize>,
    ) -> Result<Vec<Arc<Container>>> {
        filters::check_keys(filters, KEYS)?;
        let selection = Selection::new(self, filters)?;
        let everything =
            all || limit.is_some() || filters.contains_key("status") || filters.contains_key("exited");
        let mut found: Vec<_> = self
            .containers()
            .into_iter()
            .filter(|c| {
                everything
                    || matches!(
                        c.state.status,
                        Status::Running | Status::Paused | Status::Restarting
                    )
            })
            .filter(|c| selection.matches(c))
            .collect();
        if let Some(limit) = limit {
            found.truncate(limit);
        }
        Ok(found)
    }
}

/// Filters with everything looked up that does not depend on the container.
struct Selection<'a> {
    filters: &'a Filters,
    before: Option<Arc<Container>>,
    since: Option<Arc<Container>>,
    /// Image ids that `ancestor` names, with the names themselves.
    ancestors: Option<Vec<String>>,
    exited: Option<Vec<i32>>,
}

impl<'a> Selection<'a> {
    fn new(engine: &Engine, filters: &'a Filters) -> Result<Selection<'a>> {
        let container = |key: &str| match filters.get(key).and_then(|v| v.first()) {
            Some(name) => engine.container(name).map(Some),
            None => Ok(None),
        };
        let number = |text: &String| {
            text.parse::<i32>()
                .map_err(|_| Error::invalid(format!("invalid filter 'exited=[{text}]'")))
        };
        if let Some(bad) = filters
            .get("status")
            .and_then(|v| v.iter().find(|s| !is_status(s)))
        {
            return Err(Error::invalid(format!("invalid filter 'status={bad}'")));
        }
        if let Some(bad) = filters
            .get("health")
            .and_then(|v| v.iter().find(|s| !is_health(s)))
        {
            return Err(Error::invalid(format!("invalid filter 'health={bad}'")));
        }
        let ancestors = filters.get("ancestor").map(|names| {
            let mut all = names.clone();
            all.extend(
                names
                    .iter()
                    .filter_map(|n| engine.inner.images.resolve(n).ok())
                    .map(|i| i.id.to_string()),
            );
            all
        });
        Ok(Selection {
            filters,
            before: container("before")?,
            since: container("since")?,
            ancestors,
            exited: filters
                .get("exited")
                .map(|v| v.iter().map(number).collect::<Result<_>>())
                .transpose()?,
        })
    }

    fn matches(&self, c: &Container) -> bool {
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            self.filters
                .get(key)
                .is_none_or(|values| values.is_empty() || values.iter().any(|v| test(v)))
        };
        let health = c.state.health.as_ref().map_or("none", |h| h.status.as_str());
        any("id", &|v| c.id.as_str().starts_with(v))
            && any("name", &|v| name_matches(&c.name, v))
            && any("status", &|v| c.state.status.as_str() == v)
            && any("health", &|v| health == v)
            && any("is-task", &|v| matches!(v, "false" | "0"))
            && any("isolation", &|v| v == "default")
            && any("network", &|v| {
                c.networks
                    .iter()
                    .any(|(n, e)| n == v || (!v.is_empty() && e.network_id.starts_with(v)))
            })
            && any("volume", &|v| {
                c.mounts
                    .iter()
                    .any(|m| m.name == v || m.source == v || m.destination == v)
            })
            && any("publish", &|v| {
                let published = c.ports.entries().into_iter().filter(|(_, b)| !b.is_empty());
                port_matches(published.map(|(p, _)| p), v)
            })
            && any("expose", &|v| port_matches(c.config.exposed_ports.names(), v))
            && self
                .filters
                .get("label")
                .is_none_or(|wanted| filters::matches_labels(&c.config.labels, wanted))
            && self.before.as_ref().is_none_or(|b| c.created < b.created)
            && self.since.as_ref().is_none_or(|s| c.created > s.created)
            && self
                .exited
                .as_ref()
                .is_none_or(|codes| c.state.status == Status::Exited && codes.contains(&c.state.exit_code))
            && self
                .ancestors
                .as_ref()
                .is_none_or(|names| names.iter().any(|n| is_ancestor(c, n)))
    }
}

fn is_ancestor(c: &Container, name: &str) -> bool {
    // By whatever digest users know the image: nobody means one and finds the other.
    let mut ids = std::iter::once(&c.image_id).chain(&c.image_config);
    ids.any(|id| id.as_str() == name || id.hex().starts_with(name))
        || c.image == name
        || c.image.split(':').next() == Some(name)
}

fn is_status(text: &str) -> bool {
    matches!(
        text,
        "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead"
    )
}

fn is_health(text: &str) -> bool {
    matches!(text, "none" | "starting" | "healthy" | "unhealthy")
}

/// Docker matches names by regular expression; `^`, `$` and plain text are what people use.
fn name_matches(name: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    let (start, rest) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest.strip_prefix('/').unwrap_or(rest)),
        None => (false, wanted),
    };
    let (end, text) = match rest.strip_suffix('$') {
        Some(text) => (true, text),
        None => (false, rest),
    };
    match (start, end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

fn port_matches(mut have: impl Iterator<Item = String>, wanted: &str) -> bool {
    let (range, proto) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) else {
        return false;
    };
    have.any(|port| {
        ports::parse(&port).is_ok_and(|(n, p)| (from..=to).contains(&n) && p.to_string() == proto)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(name_matches("web-1", "web"));
        assert!(name_matches("web-1", "^web"));
        assert!(name_matches("web-1", "^/web-1$"));
        assert!(!name_matches("web-1", "^web$"));
    }

    #[test]
    fn port_ranges() {
        let have = ["80/tcp".to_owned(), "53/udp".to_owned()];
        assert!(port_matches(have.clone().into_iter(), "80"));
        assert!(port_matches(have.clone().into_iter(), "50-60/udp"));
        assert!(!port_matches(have.clone().into_iter(), "53"));
    }
}
