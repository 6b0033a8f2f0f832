//! Networks: bridges, endpoints, addresses, published ports, and the names containers find each other by.
//!
//! ```text
//!   Networks ── one per daemon, cheap to clone
//!     ├─ state      what exists: networks, endpoints, ports (one mutex, never held over kernel work)
//!     ├─ records    the same in the store's database, written before the kernel is touched
//!     ├─ ipam       which subnets and addresses are free (pure)
//!     ├─ driver     what makes a network: bridge, macvlan and ipvlan (direct), overlay (vxlan)
//!     ├─ link       bridges, veth pairs, addresses, routes        (sys::netlink, NETLINK_ROUTE)
//!     ├─ firewall   one nftables table of our own, `inet <tag>`   (sys::netlink, NETLINK_NETFILTER)
//!     ├─ watch      sees what others do to rules, bridges and links, and puts it right
//!     ├─ prepared   network namespaces made ahead of need
//!     └─ names      tables for the embedded resolver (crate `dns`), files below the run directory
//! ```
//!
//! Invariants:
//! - An address or a host port is recorded before it is used and forgotten after it was taken back, so that none is
//!   handed out twice, whatever instruction the daemon was killed at. [`Networks::reconcile`] drops what belongs to
//!   containers that no longer live.
//! - Everything made on the host carries the instance's tag (link alias, table name), and nothing without it is ever
//!   changed: another engine's rules, bridges and routes stay as they are.
//! - Each firewall change is one transaction, also where the table is made anew as a whole, so packets never meet half
//!   a rule set.
//!
//! Failure: [`Error`], whose text is what the API's clients expect and whose [`Error::class`] maps to a status.

mod address;
mod attach;
mod check;
mod connect;
mod direct;
mod driver;
mod error;
mod explain;
mod firewall;
mod gate;
mod host;
mod ipam;
mod lifecycle;
mod link;
mod model;
mod names;
mod port;
mod prepared;
mod publish;
mod reaper;
mod reconcile;
mod records;
mod reserve;
mod resolv;
mod settings;
mod state;
mod sysctl;
mod template;
mod vxlan;
mod watch;

pub use address::{Mac, ParseAddressError, Prefix};
pub use check::Stray;
pub use dns::log::Entry as DnsEntry;
pub use error::Error;
pub use explain::Explained;
pub use firewall::check_kernel;
pub use ipam::AddressPool;
pub use model::{
    CreateNetwork, DefaultBridge, DnsConfig, Endpoint, EndpointInfo, EndpointRequest, Ipam, IpamPool,
    Network, NetworkConfig, PortChoice, PortRequest, Proto, PublishedPort, Sandbox, SandboxRequest,
    SavedSandbox, Served, SubnetStatus,
};
pub use state::Networks;
