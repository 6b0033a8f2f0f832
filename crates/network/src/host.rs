//! Settings of the host's kernel that networks depend on (/proc/sys/net). Each is changed only where it stands in the
//! way, and said.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::path::Path;

const FORWARD_IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Sets a value that is another one; gives whether it is as wanted afterwards. A kernel without the setting has
/// nothing to set.
fn set(path: &str, value: &str) -> bool {
    match read(path) {
        None => true,
        Some(found) if found == value => true,
        Some(found) => match fs::write(path, value) {
            Ok(()) => {
                tracing::info!(path, from = found, to = value, "changed a kernel setting");
                true
            }
            Err(error) => {
                tracing::warn!(path, value, %error, "a kernel setting could not be changed");
                false
            }
        },
    }
}

/// Lets the host pass packets on, without which no container reaches beyond it.
pub(crate) fn enable_forwarding_ipv4() {
    set(FORWARD_IPV4, "1");
}

/// The same for IPv6. A host that forwards stops listening to routers, so interfaces that learn their routes that way
/// are told to go on (`accept_ra=2`) first; otherwise the host would lose its own way out.
pub(crate) fn enable_forwarding_ipv6() {
    if read(FORWARD_IPV6).is_none_or(|found| found == "1") {
        return;
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let path = entry.path().join("accept_ra");
        let Some(path) = path.to_str().filter(|_| name != "all" && name != "lo") else {
            continue;
        };
        if read(path).as_deref() == Some("1") {
            set(path, "2");
        }
    }
    set(FORWARD_IPV6, "1");
}

/// Whether programs of this host can be reached over IPv6. It may be missing, or switched off.
pub(crate) fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Settings of a bridge of ours. `localhost` lets the host reach published ports on 127.0.0.1: answers come back to a
/// loopback address, which an interface otherwise refuses to take. What a container itself sends there is dropped by
/// the firewall.
pub(crate) fn prepare_bridge(name: &str, ipv6: bool, localhost: bool) {
    let setting = |family: &str, key: &str| format!("/proc/sys/net/{family}/conf/{name}/{key}");
    let write = |path: String, value: &str| {
        if Path::new(&path).exists()
            && let Err(error) = fs::write(&path, value)
        {
            tracing::warn!(path, value, %error, "a setting of a bridge could not be changed");
        }
    };
    // A container must not tell the host where its routers are (CVE-2020-13401).
    write(setting("ipv6", "accept_ra"), "0");
    write(setting("ipv6", "disable_ipv6"), if ipv6 { "0" } else { "1" });
    write(
        setting("ipv4", "route_localnet"),
        if localhost { "1" } else { "0" },
    );
}

/// Settings of the end of the gate by which copies come in: their sources are reached over other links, and nobody there
/// tells the host where its routers are.
pub(crate) fn prepare_gate(name: &str) {
    let settings = [
        ("ipv4", "rp_filter", "2"),
        ("ipv4", "forwarding", "1"),
        ("ipv6", "accept_ra", "0"),
    ];
    for (family, key, value) in settings {
        let path = format!("/proc/sys/net/{family}/conf/{name}/{key}");
        if Path::new(&path).exists()
            && let Err(error) = fs::write(&path, value)
        {
            tracing::warn!(path, value, %error, "a setting of the gate could not be changed");
        }
    }
}

/// Whether the kernel hands bridged packets to the IP rules (br_netfilter, which other engines load). A container that
/// asks for its own published port then gets the answer over the bridge alone, back out of the port it came from.
pub(crate) fn bridged_traffic_is_filtered() -> bool {
    read("/proc/sys/net/bridge/bridge-nf-call-iptables").as_deref() == Some("1")
}
