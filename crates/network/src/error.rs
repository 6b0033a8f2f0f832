//! The room's one error type. Texts that reach clients are the ones Docker's clients and test suites look for.

use std::net::IpAddr;

use spec::ErrorClass;

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network of this name or id.
    #[error("network {0} not found")]
    NotFound(String),
    /// An id prefix fits several networks.
    #[error("network {name} is ambiguous ({count} matches found on ID prefix)")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many it fits.
        count: usize,
    },
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameInUse(String),
    /// One of the three that always exist.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// The request may not be carried out.
    #[error("{0}")]
    Forbidden(String),
    /// The network still has containers.
    #[error("error while removing network: network {name} has active endpoints ({holders})")]
    InUse {
        /// The network.
        name: String,
        /// `name:"web" id:"0123456789ab"`, comma separated.
        holders: String,
    },
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The driver is not one of ours.
    #[error(
        "could not find plugin {0} in v1 plugin registry: plugin not found; the drivers of this engine are bridge, macvlan, ipvlan, overlay, host and none"
    )]
    UnknownDriver(String),
    /// The subnet is taken by another network or by a route of the host.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// Every subnet of the pools is taken.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// Every address of the subnet is taken.
    #[error("no available IPv4 addresses on this network's address pools: {name} ({id})")]
    AddressesExhausted {
        /// The network.
        name: String,
        /// Its identity.
        id: String,
    },
    /// A fixed address is taken.
    #[error("Address already in use")]
    AddressInUse(IpAddr),
    /// The container is in the network already.
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyAttached {
        /// The container's name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// The container is not in the network.
    #[error("container {container} is not connected to network {network}")]
    NotAttached {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// A port cannot be published.
    #[error("driver failed programming external connectivity on endpoint {endpoint} ({id}): {reason}")]
    Publish {
        /// The container's name.
        endpoint: String,
        /// The endpoint's identity.
        id: String,
        /// What stands in the way.
        reason: String,
    },
    /// The kernel refused to make or change something.
    #[error("{action}: {source}")]
    Kernel {
        /// What was being done, with names.
        action: String,
        /// The kernel's answer.
        source: sys::netlink::Failure,
    },
    /// A file or descriptor operation failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] store::DbError),
    /// A record in the database cannot be read.
    #[error("the record of {what} in the database cannot be read: {reason}")]
    Record {
        /// Whose record.
        what: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// The class a face maps to its own codes.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::NotFound(_) => ErrorClass::NotFound,
            Error::Ambiguous { .. } | Error::Invalid(_) => ErrorClass::Invalid,
            Error::NameInUse(_) => ErrorClass::Conflict,
            Error::Predefined(_)
            | Error::Forbidden(_)
            | Error::InUse { .. }
            | Error::Overlap
            | Error::AlreadyAttached { .. }
            | Error::NotAttached { .. } => ErrorClass::Forbidden,
            Error::UnknownDriver(_) => ErrorClass::NotFound,
            Error::PoolsExhausted => ErrorClass::NotFound,
            Error::AddressInUse(_) => ErrorClass::Forbidden,
            Error::AddressesExhausted { .. }
            | Error::Publish { .. }
            | Error::Kernel { .. }
            | Error::Io { .. }
            | Error::Database(_)
            | Error::Record { .. } => ErrorClass::Internal,
        }
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let action = action.into();
        move |source| Error::Io { action, source }
    }

    pub(crate) fn kernel(action: impl Into<String>) -> impl FnOnce(sys::netlink::Failure) -> Error {
        let action = action.into();
        move |source| Error::Kernel { action, source }
    }
}
