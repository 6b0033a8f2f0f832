//! Networks that are settings alone (`--config-only`), and networks that are made from them (`--config-from`).
//!
//! Settings alone have nothing on the host and hold no addresses; a network that is made from them takes what they say at
//! that moment: subnets, families, options, labels. They stay for as long as such a network is there.

use std::collections::BTreeMap;

use spec::Id;

use crate::driver::Driver;
use crate::error::Error;
use crate::ipam;
use crate::model::{CreateNetwork, Ipam, Network};
use crate::state::{NetworkState, State};

/// What an inspection shows as the driver of settings alone.
const DRIVER: &str = "null";

fn forbidden<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Forbidden(text.into()))
}

/// What may not be asked for together.
pub(crate) fn check(request: &CreateNetwork) -> Result<(), Error> {
    if request.config_only {
        if !request.config_from.is_empty() {
            return forbidden("a configuration network cannot depend on another configuration network");
        }
        if request.internal || request.attachable {
            return forbidden(
                "configuration network can only contain network specific fields. Network operator fields like [ ingress \
                 | internal | attachable | scope ] are not supported.",
            );
        }
    }
    if request.config_from.is_empty() {
        return Ok(());
    }
    if request.enable_ipv6
        || !request.labels.is_empty()
        || !request.ipam.is_empty()
        || request
            .ipam_options
            .as_ref()
            .is_some_and(|options| !options.is_empty())
    {
        return forbidden(
            "user specified configurations are not supported if the network depends on a configuration network",
        );
    }
    if !request.options.is_empty() {
        return forbidden(
            "network driver options are not supported if the network depends on a configuration network",
        );
    }
    Ok(())
}

/// The settings of a network of which nothing is on the host.
pub(crate) fn settings_alone(
    id: &Id,
    request: &CreateNetwork,
    created: String,
) -> Result<NetworkState, Error> {
    ipam::check(&request.ipam)?;
    Ok(NetworkState {
        network: Network {
            id: id.clone(),
            name: request.name.clone(),
            driver: DRIVER.to_owned(),
            scope: "local".to_owned(),
            created,
            enable_ipv4: request.enable_ipv4,
            enable_ipv6: request.enable_ipv6,
            internal: false,
            attachable: false,
            ingress: false,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: request.ipam_options.clone(),
                config: request.ipam.clone(),
            },
            options: request.options.clone(),
            labels: request.labels.clone(),
            config_only: true,
            config_from: String::new(),
            endpoints: BTreeMap::new(),
        },
        driver: Driver::None,
        subnets: Vec::new(),
    })
}

impl State {
    /// The request with the settings that it refers to.
    pub(crate) fn completed(&self, request: &CreateNetwork) -> Result<CreateNetwork, Error> {
        if request.config_from.is_empty() {
            return Ok(request.clone());
        }
        let found = &self.find(&request.config_from)?.network;
        if !found.config_only {
            return forbidden(format!("{} is not a configuration network", found.name));
        }
        Ok(CreateNetwork {
            ipam: found.ipam.config.clone(),
            ipam_options: found.ipam.options.clone(),
            enable_ipv4: found.enable_ipv4,
            enable_ipv6: found.enable_ipv6,
            options: found.options.clone(),
            labels: found.labels.clone(),
            // As it is called, whatever it was found by.
            config_from: found.name.clone(),
            ..request.clone()
        })
    }

    /// Refuses to take settings away that a network was made from.
    pub(crate) fn check_settings_unused(&self, network: &Network) -> Result<(), Error> {
        let mut networks = self.networks.values();
        let user = networks.find(|other| network.config_only && other.network.config_from == network.name);
        match user {
            Some(user) => forbidden(format!(
                "configuration network {:?} is in use (by network {})",
                network.name, user.network.name
            )),
            None => Ok(()),
        }
    }

    /// A network that containers can be in.
    pub(crate) fn joinable(&self, name: &str) -> Result<&NetworkState, Error> {
        let found = self.find(name)?;
        match found.network.config_only {
            true => forbidden(format!(
                "cannot create endpoint on configuration-only network {}",
                found.network.name
            )),
            false => Ok(found),
        }
    }
}
