//! What others do to our part of the host, seen when it happens: a rule set that is flushed, a bridge or a container's
//! link that is removed, a route that leads where a network of ours is.
//!
//! One thread sleeps on two netlink sockets. It compares before it acts, so an announcement that was lost (`ENOBUFS`)
//! or that tells of our own work costs a look and nothing else. Rules are put back at once, as the whole table in one
//! transaction; a bridge is made again with its ports. A container's link cannot be put back from here, since its
//! namespace is the engine's to know: it is told, and [`Networks::reload`](crate::Networks::reload) makes it again.
//!
//! The thread holds the instance weakly and ends with it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use sys::netlink::{Failure, Reply, Socket};

use crate::address::Prefix;
use crate::error::Error;
use crate::gate;
use crate::link::{self, Announcement, Link};
use crate::state::{Inner, Networks};

/// Where changes of the rule set are announced (`NFNLGRP_NFTABLES`).
const RULES: u32 = 7;
/// A container that ends takes its link along before the engine has heard of its end; only a link that is missed after
/// this long is told.
const GRACE: Duration = Duration::from_secs(1);
/// How soon a repair that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The sockets that see, opened before the host is looked at, so that nothing falls in between.
pub(crate) struct Sight {
    /// Where there are rules of ours.
    rules: Option<Socket>,
    routes: Socket,
}

/// The thread that watches; it ends when this is dropped.
pub(crate) struct Watch {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Sight {
    pub(crate) fn open(rules: bool) -> Result<Sight, Error> {
        let failed = || Error::io("watch the host's links and rules");
        let rules = rules.then(|| -> std::io::Result<Socket> {
            let socket = Socket::netfilter()?;
            socket.subscribe(RULES)?;
            Ok(socket)
        });
        let rules = rules.transpose().map_err(failed())?;
        let routes = Socket::route().map_err(failed())?;
        for group in link::ANNOUNCED {
            routes.subscribe(group).map_err(failed())?;
        }
        Ok(Sight { rules, routes })
    }

    pub(crate) fn watch(self, inner: &Arc<Inner>) -> Result<Watch, Error> {
        let failed = || Error::io("start the thread that watches the host's links and rules");
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| failed()(errno.into()))?;
        let ended = stop.try_clone().map_err(failed())?;
        let own_port = match &inner.firewall {
            Some(firewall) => firewall.port()?,
            None => 0,
        };
        let mut watcher = Watcher {
            inner: Arc::downgrade(inner),
            own_port,
            retry: None,
            missed: Vec::new(),
            told: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watcher.run(&self, &ended))
            .map_err(failed())?;
        Ok(Watch {
            stop,
            thread: Some(thread),
        })
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watcher {
    inner: Weak<Inner>,
    own_port: u32,
    /// When rules that could not be put back are tried again.
    retry: Option<Instant>,
    /// Containers' links that went, and when that is worth telling.
    missed: Vec<(Instant, String)>,
    /// Routes that were told to be in the way.
    told: BTreeSet<Prefix>,
}

impl Watcher {
    fn run(&mut self, sight: &Sight, ended: &OwnedFd) {
        loop {
            let wait = self.next_deadline().map(|at| {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            let rules = sight.rules.as_ref().map_or(ended.as_fd(), AsFd::as_fd);
            let mut ready = [ended.as_fd(), rules, sight.routes.as_fd()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut ready, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the host's links and rules are no longer watched");
                    return;
                }
            }
            let woken = ready.map(|one| !one.revents().is_empty());
            let Some(inner) = self.inner.upgrade().filter(|_| !woken[0]) else {
                return;
            };
            if let (true, Some(rules)) = (woken[1], &sight.rules) {
                self.rules_announced(&inner, drain(rules));
            }
            if woken[2] {
                self.links_announced(&inner, drain(&sight.routes));
            }
            self.what_is_due(&inner);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.missed.iter().map(|(at, _)| *at).chain(self.retry).min()
    }

    /// `None`: announcements were lost.
    fn rules_announced(&mut self, inner: &Inner, announced: Option<Vec<Reply>>) {
        let Some(firewall) = &inner.firewall else { return };
        let touched = announced.is_none_or(|replies| {
            replies
                .iter()
                .any(|reply| firewall.is_foreign_change(reply, self.own_port))
        });
        if touched {
            self.put_rules_back(inner);
        }
    }

    fn put_rules_back(&mut self, inner: &Inner) {
        self.retry = None;
        match inner.ensure_rules() {
            Ok(None) => {}
            Ok(Some(difference)) => {
                tracing::warn!(
                    difference,
                    "somebody changed our firewall table; it is written anew"
                );
            }
            Err(error) => {
                tracing::error!(%error, "our firewall table, which somebody changed, cannot be written; trying again");
                self.retry = Some(Instant::now() + AGAIN);
            }
        }
    }

    fn links_announced(&mut self, inner: &Arc<Inner>, announced: Option<Vec<Reply>>) {
        let Some(replies) = announced else {
            // What was lost is not known: look at everything.
            inner.remake_missing_bridges();
            return;
        };
        for reply in replies {
            match link::announcement(&reply) {
                Some(Announcement::LinkGone(gone)) => self.link_gone(inner, gone),
                Some(Announcement::Route(to, over)) => self.route_came(inner, to, over),
                None => {}
            }
        }
    }

    fn link_gone(&mut self, inner: &Arc<Inner>, gone: Link) {
        let (bridge, is_endpoint) = {
            let state = inner.state();
            let bridge = state.networks.values().any(|network| {
                network
                    .bridge()
                    .is_some_and(|bridge| bridge.index == Some(gone.index))
            });
            let mut attached = state.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints);
            (bridge, attached.any(|a| a.host_link == gone.name))
        };
        if bridge {
            inner.remake_missing_bridges();
        }
        if gate::is_end(&inner.config.instance.tag, &gone.name) && inner.state().gate.is_some() {
            inner.remake_gate();
        }
        if is_endpoint {
            self.missed.push((Instant::now() + GRACE, gone.name));
        }
    }

    fn route_came(&mut self, inner: &Inner, to: Prefix, over: Option<u32>) {
        let in_the_way = inner.state().networks.values().find_map(|network| {
            let bridge = network.bridge()?;
            let subnet = network
                .subnets
                .iter()
                .map(|s| s.prefix)
                .find(|s| s.overlaps(&to))?;
            // The route of a bridge that is just being made comes before its index is known here.
            let is_foreign = bridge.index.is_some() && bridge.index != over;
            is_foreign.then(|| (network.network.name.clone(), subnet))
        });
        if let Some((network, subnet)) = in_the_way
            && self.told.insert(to)
        {
            tracing::warn!(
                network,
                %subnet,
                route = %to,
                "the host has a new route into the addresses of a network; one of them is out of reach: move the network \
                 (network rm, then create with --subnet), or set default-address-pools"
            );
        }
    }

    fn what_is_due(&mut self, inner: &Inner) {
        let now = Instant::now();
        if self.retry.is_some_and(|at| at <= now) {
            self.put_rules_back(inner);
        }
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.missed)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.missed = later;
        for (_, link) in due {
            let state = inner.state();
            for sandbox in state.sandboxes.values() {
                if let Some(attached) = sandbox.endpoints.iter().find(|a| a.host_link == link) {
                    tracing::warn!(
                        container = sandbox.name,
                        network = attached.endpoint.network_name,
                        link,
                        "the link of a container was removed and the container is cut off; `berth network reload` makes it again"
                    );
                }
            }
        }
    }
}

/// Everything that waits; `None` when some was lost.
fn drain(socket: &Socket) -> Option<Vec<Reply>> {
    let mut all = Vec::new();
    let mut whole = true;
    loop {
        match socket.notifications() {
            Ok(replies) if replies.is_empty() => break,
            Ok(replies) => all.extend(replies),
            Err(Failure {
                errno: Errno::NOBUFS, ..
            }) => whole = false,
            Err(failure) => {
                tracing::warn!(%failure, "an announcement of the kernel could not be read");
                whole = false;
                break;
            }
        }
    }
    whole.then_some(all)
}

impl Inner {
    /// Makes the firewall's table as it should be; tells in what it differed.
    pub(crate) fn ensure_rules(&self) -> Result<Option<String>, Error> {
        let _order = self.order();
        let Some(firewall) = self.firewall.as_ref().filter(|_| !self.is_leaving()) else {
            return Ok(None);
        };
        let desired = self.state().desired(None);
        firewall.ensure(&desired)
    }

    /// Makes the gate again, and leads copies to it.
    fn remake_gate(&self) {
        if self.is_leaving() {
            return;
        }
        let made = gate::ensure(&mut self.route(), &self.config.instance.tag);
        let ensured = made.and_then(|gate| {
            self.state().gate = Some(gate);
            self.ensure_rules()
        });
        match ensured {
            Ok(_) => tracing::warn!("somebody removed the gate to published ports; it is made again"),
            Err(error) => tracing::error!(%error, "the gate to published ports cannot be made again"),
        }
    }

    /// Makes bridges again that are not there although their networks are.
    fn remake_missing_bridges(self: &Arc<Self>) {
        if self.is_leaving() {
            return;
        }
        let networks = Networks::new(self.clone(), None);
        let missing = match networks.missing_bridges() {
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(%error, "the host's bridges could not be looked at");
                return;
            }
        };
        for bridge in missing {
            match networks.repair(&bridge, None) {
                Ok(_) => tracing::warn!(%bridge, "somebody removed a bridge; it is made again"),
                Err(error) => {
                    tracing::error!(%bridge, %error, "a bridge that somebody removed cannot be made again");
                }
            }
        }
    }
}
