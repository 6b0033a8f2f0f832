//! Changing a container that exists: its name, its limits, its networks.

use std::os::fd::AsFd as _;
use std::time::Instant;

use api_types::port_reach::PortReaches;
use api_types::{EndpointSettings, PortMap, UpdateConfig};
use network::{PortRequest, PublishedPort};
use spec::runtime::{Pids, Resources};

use super::owner::{Command, Owner};
use super::{Container, launch, oci, ports, restart};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::names;

impl Engine {
    /// Gives a container another name.
    pub async fn container_rename(&self, name: &str, new: &str) -> Result<()> {
        let handle = self.inner.containers.find(name)?;
        let new = new.strip_prefix('/').unwrap_or(new).to_owned();
        handle.ask(|answer| Command::Rename { name: new, answer }).await
    }

    /// Changes limits and restart policy, at once where the container runs. Gives warnings.
    pub async fn container_update(&self, name: &str, update: UpdateConfig) -> Result<Vec<String>> {
        let handle = self.inner.containers.find(name)?;
        handle
            .ask(|answer| Command::Update {
                update: Box::new(update),
                answer,
            })
            .await
    }

    /// Who reaches the published ports of a running container, and which rules say so.
    pub async fn container_ports(&self, name: &str) -> Result<PortReaches> {
        let container = self.container(name)?;
        if !container.state.status.is_alive() {
            return Err(container.not_running());
        }
        let inner = std::sync::Arc::clone(&self.inner);
        blocking(move || {
            let explained = inner.networks.explain(&container.id)?;
            Ok(PortReaches {
                ports: explained.iter().map(ports::reach).collect(),
            })
        })
        .await
    }

    /// Connects a container to one more network.
    pub async fn network_connect(
        &self,
        network: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<()> {
        let network = self.inner.networks.get(network)?.name;
        let handle = self.inner.containers.find(container)?;
        let settings = Box::new(settings.unwrap_or_default());
        handle
            .ask(|answer| Command::Connect {
                network,
                settings,
                answer,
            })
            .await
    }

    /// Takes a container off a network.
    pub async fn network_disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let network = self.inner.networks.get(network)?.name;
        let handle = self.inner.containers.find(container)?;
        handle
            .ask(|answer| Command::Disconnect {
                network,
                force,
                answer,
            })
            .await
    }
}

impl Owner {
    pub(super) async fn rename(&mut self, new: String) -> Result<()> {
        if !names::is_valid(&new) {
            return Err(Error::invalid(format!(
                "Error when allocating new name: Invalid container name ({new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        if new == self.container.name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.engine
            .containers
            .reserve_name(&new, &self.container.id)
            .map_err(|error| error.context("Error when allocating new name"))?;
        let old = std::mem::replace(&mut self.container.name, new);
        if let Err(error) = self.publish() {
            let new = std::mem::replace(&mut self.container.name, old);
            self.engine.containers.release_name(&new);
            self.publish_only();
            return Err(error);
        }
        self.engine.containers.release_name(&old);
        let engine = std::sync::Arc::clone(&self.engine);
        let (id, name) = (self.container.id.clone(), self.container.name.clone());
        blocking(move || Ok(engine.networks.rename(&id, &name)?)).await?;
        self.emit_with("rename", [("oldName", format!("/{old}"))]);
        Ok(())
    }

    pub(super) async fn update(&mut self, update: UpdateConfig) -> Result<Vec<String>> {
        let mut next = self.container.clone();
        let host = std::sync::Arc::make_mut(&mut next.host_config);
        if !update.restart_policy.name.is_empty() {
            restart::validate(&update.restart_policy)?;
            if host.auto_remove && update.restart_policy.name != "no" {
                return Err(Error::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            host.restart_policy = update.restart_policy;
        }
        let set = |field: &mut i64, value: i64| {
            if value != 0 {
                *field = value;
            }
        };
        if update.nano_cpus != 0 && (host.cpu_quota != 0 || host.cpu_period != 0) {
            return Err(Error::conflict(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
            ));
        }
        if (update.cpu_period != 0 || update.cpu_quota != 0) && host.nano_cpus != 0 {
            return Err(Error::conflict(
                "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
            ));
        }
        if update.memory > 0 && update.memory < 6 << 20 {
            return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
        }
        let swap = if update.memory_swap == 0 {
            host.memory_swap
        } else {
            update.memory_swap
        };
        if update.memory > 0 && swap > 0 && update.memory > swap {
            return Err(Error::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        set(&mut host.cpu_shares, update.cpu_shares);
        set(&mut host.memory, update.memory);
        set(&mut host.memory_swap, update.memory_swap);
        set(&mut host.memory_reservation, update.memory_reservation);
        set(&mut host.nano_cpus, update.nano_cpus);
        set(&mut host.cpu_period, update.cpu_period);
        set(&mut host.cpu_quota, update.cpu_quota);
        set(&mut host.cpu_realtime_period, update.cpu_realtime_period);
        set(&mut host.cpu_realtime_runtime, update.cpu_realtime_runtime);
        if update.blkio_weight != 0 {
            host.blkio_weight = update.blkio_weight;
        }
        for (field, value) in [
            (&mut host.cpuset_cpus, update.cpuset_cpus),
            (&mut host.cpuset_mems, update.cpuset_mems),
        ] {
            if !value.is_empty() {
                *field = value;
            }
        }
        if update.pids_limit.is_some() {
            host.pids_limit = update.pids_limit;
        }
        let mut limits = match next.state.status.is_alive() {
            true => Some(oci::resources(&next)?),
            false => None,
        };
        if let Some(limits) = &mut limits
            && update.pids_limit.is_some_and(|limit| limit <= 0)
        {
            // That there is no limit is nothing to a new group, and a change to one that has had one.
            limits.pids = Some(Pids { limit: -1 });
        }
        let done = self
            .carry_out(next, limits.clone(), &update.publish_add, &update.publish_remove)
            .await;
        if let Err(error) = done {
            // All of an update or nothing.
            if let Some(written) = limits {
                self.hold_again(&written).await;
            }
            return Err(error);
        }
        self.emit("update");
        Ok(Vec::new())
    }

    /// Becomes what an update makes of the container: in the kernel, where it runs, and in the record.
    async fn carry_out(
        &mut self,
        mut next: Container,
        limits: Option<Resources>,
        add: &PortMap,
        remove: &PortMap,
    ) -> Result<()> {
        if let Some(limits) = limits {
            self.hold_to(limits).await?;
        }
        let published = self.engine.networks.published(&self.container.id);
        self.republish(&mut next, add, remove).await?;
        let before = std::mem::replace(&mut self.container, next);
        let Err(error) = self.publish() else {
            return Ok(());
        };
        self.container = before;
        self.publish_only();
        if !self.container.state.status.is_alive() || (add.is_empty() && remove.is_empty()) {
            return Err(error);
        }
        // The monitor has been told of those that are not to be.
        self.serves_unknown = true;
        match self.publish_again(published).await {
            Ok(()) => Err(error),
            Err(lost) => Err(error.context(format!(
                "the ports cannot be published again as they were before ({})",
                lost.message
            ))),
        }
    }

    /// Publishes more ports and takes others back: in the settings for the next start, and at once while it runs.
    async fn republish(&mut self, next: &mut Container, add: &PortMap, remove: &PortMap) -> Result<()> {
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        if !next.has_endpoints() {
            return Err(Error::invalid(format!(
                "container {} has no network of its own, so no port of it can be published",
                next.name
            )));
        }
        let (added, removed) = (ports::bound(add)?, ports::bound(remove)?);
        let host = std::sync::Arc::make_mut(&mut next.host_config);
        let mut names = remove.names();
        if !next.state.status.is_alive()
            && let Some(port) = names.find(|port| !host.port_bindings.contains_key(port))
        {
            return Err(Error::invalid(format!("port {port} is not published")));
        }
        ports::unbind(&mut host.port_bindings, remove);
        ports::bind(&mut host.port_bindings, add);
        if next.state.status.is_alive() {
            if self.serves_unknown {
                // It may hold the very port that is wanted.
                self.tell_served().await;
            }
            let published = self.publish_live(added, removed).await?;
            self.tell_served().await;
            next.ports = std::sync::Arc::new(ports::published(next, &published));
        }
        Ok(())
    }

    /// Publishes ports and takes others back, all at once where that can be. Where those that come are at numbers that the
    /// monitor has for those that go, it is told to let go of them in between; if the others cannot be had then, it is all
    /// as it was.
    async fn publish_live(
        &mut self,
        added: Vec<PortRequest>,
        removed: Vec<PortRequest>,
    ) -> Result<Vec<PublishedPort>> {
        let (engine, id) = (std::sync::Arc::clone(&self.engine), self.container.id.clone());
        let at_once = {
            let (engine, id) = (std::sync::Arc::clone(&engine), id.clone());
            let (added, removed) = (added.clone(), removed.clone());
            blocking(move || Ok(engine.networks.publish(&id, &added, &removed)?)).await
        };
        let refused = match at_once {
            Err(refused) if engine.networks.waits_for_monitor(&id, &added, &removed) => refused,
            other => return other,
        };
        tracing::debug!(container = %id, error = refused.message, "ports are taken back before others are published");
        let before = engine.networks.published(&id);
        {
            let (engine, id) = (std::sync::Arc::clone(&engine), id.clone());
            blocking(move || Ok(engine.networks.publish(&id, &[], &removed)?)).await?;
        }
        self.tell_served().await;
        let added = {
            let (engine, id) = (std::sync::Arc::clone(&engine), id.clone());
            blocking(move || Ok(engine.networks.publish(&id, &added, &[])?)).await
        };
        let Err(error) = added else { return added };
        match self.publish_again(before).await {
            Ok(()) => Err(error),
            Err(lost) => Err(error.context(format!(
                "what was taken back before it cannot be published again ({})",
                lost.message
            ))),
        }
    }

    /// Publishes exactly what was published before some of it was changed. Where that cannot be had, the container has and shows
    /// what is published now.
    async fn publish_again(&mut self, before: Vec<PublishedPort>) -> Result<()> {
        let (engine, id) = (std::sync::Arc::clone(&self.engine), self.container.id.clone());
        let again = blocking(move || Ok(engine.networks.publish_again(&id, &before)?)).await;
        self.tell_served().await;
        if again.is_err() {
            let left = self.engine.networks.published(&self.container.id);
            self.container.ports = std::sync::Arc::new(ports::published(&self.container, &left));
            self.publish_or_log();
        }
        again
    }

    pub(super) async fn connect(&mut self, network: String, settings: EndpointSettings) -> Result<()> {
        let mode = self.container.host_config.network_mode.as_str();
        if mode == "host" || mode.starts_with("container:") {
            return Err(Error::forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if network == "host" {
            return Err(Error::forbidden(
                "cannot connect container to host network - container must be created in host network mode",
            ));
        }
        if self.container.networks.contains_key(&network) {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {network}",
                self.container.name
            )));
        }
        let mut settings = settings;
        let fixed_mac = Some(settings.mac_address.clone()).filter(|mac| !mac.is_empty());
        if self.container.state.status.is_alive() {
            let engine = std::sync::Arc::clone(&self.engine);
            let container = self.container.clone();
            let request = launch::endpoint_request(&network, &settings)?;
            let endpoint = blocking(move || {
                let netns = launch::netns_of(container.state.pid)?;
                let begun = Instant::now();
                let endpoint = engine.networks.connect(&container.id, netns.as_fd(), &request)?;
                engine.metrics.network_action("connect", begun);
                Ok(endpoint)
            })
            .await?;
            launch::fill_endpoint(&mut settings, &endpoint);
            self.tell_served().await;
        }
        // One that could not be joined leaves nothing to ask for there.
        if let Some(mac) = fixed_mac {
            self.container.fixed_macs.insert(network.clone(), mac);
        }
        self.container.networks.insert(network.clone(), settings);
        self.publish()?;
        self.emit_network("connect", &network);
        Ok(())
    }

    pub(super) async fn disconnect(&mut self, network: String, force: bool) -> Result<()> {
        if self.container.host_config.network_mode == "host" {
            return Err(Error::forbidden(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if !self.container.networks.contains_key(&network) {
            return Err(Error::forbidden(format!(
                "container {} is not connected to network {network}",
                self.container.id
            )));
        }
        if self.container.state.status.is_alive() {
            let engine = std::sync::Arc::clone(&self.engine);
            let (id, pid, name) = (
                self.container.id.clone(),
                self.container.state.pid,
                network.clone(),
            );
            blocking(move || {
                let netns = launch::netns_of(pid)?;
                Ok(engine
                    .networks
                    .disconnect(&id, &name, Some(netns.as_fd()), force)?)
            })
            .await?;
            self.tell_served().await;
        }
        self.container.networks.remove(&network);
        self.container.fixed_macs.remove(&network);
        self.publish()?;
        self.emit_network("disconnect", &network);
        Ok(())
    }

    pub(super) fn emit_network(&self, action: &str, network: &str) {
        if let Ok(network) = self.engine.networks.get(network) {
            let attributes = [
                ("container", self.container.id.as_str()),
                ("name", &network.name),
                ("type", &network.driver),
            ];
            let attributes = attributes
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            self.engine
                .events
                .publish("network", action, network.id.as_str(), attributes);
        }
    }
}
