//! Settings of networks: the default bridge's, and where subnets come from.

use ::network::{AddressPool, DefaultBridge, Prefix};

use super::file::File;
use super::{SettingsError, parse};
use crate::options::Options;

/// The network called `bridge`.
pub(super) fn bridge(file: &mut File, options: &Options) -> Result<DefaultBridge, SettingsError> {
    let name = file.text("bridge", options.bridge.clone())?;
    if let Some(name) = name.as_deref().filter(|n| !matches!(*n, "" | "none")) {
        return Err(SettingsError::Value {
            option: "--bridge",
            value: name.to_owned(),
            reason: "the bridge is the daemon's own and named after its root; only \"none\" can be chosen"
                .to_owned(),
        });
    }
    let fixed_cidr_v6: Option<Prefix> = parse(
        "--fixed-cidr-v6",
        file.text("fixed-cidr-v6", options.fixed_cidr_v6.clone())?,
    )?;
    if let Some(prefix) = fixed_cidr_v6.filter(|prefix| prefix.address().is_ipv4()) {
        return Err(SettingsError::Value {
            option: "--fixed-cidr-v6",
            value: prefix.to_string(),
            reason: "it is an IPv4 subnet".to_owned(),
        });
    }
    Ok(DefaultBridge {
        enabled: name.as_deref() != Some("none"),
        bip: parse("--bip", file.text("bip", options.bip.clone())?)?,
        fixed_cidr: parse(
            "--fixed-cidr",
            file.text("fixed-cidr", options.fixed_cidr.clone())?,
        )?,
        default_gateway: parse(
            "--default-gateway",
            file.text("default-gateway", options.default_gateway.clone())?,
        )?,
        enable_ipv6: file.boolean("ipv6", options.ipv6)?.unwrap_or(false),
        fixed_cidr_v6,
        mtu: file.number("mtu", options.mtu)?,
        icc: file.boolean("icc", options.icc)?.unwrap_or(true),
        ip_masquerade: file.boolean("ip-masq", options.ip_masq)?.unwrap_or(true),
        host_binding: parse("--ip", file.text("ip", options.ip.clone())?)?,
    })
}

/// The blocks that subnets are cut from; none for the customary ones.
pub(super) fn address_pools(file: &mut File, flags: &[String]) -> Result<Vec<AddressPool>, SettingsError> {
    let pools = file.pools("default-address-pools", flags)?;
    pools
        .iter()
        .map(|(base, size)| {
            let wrong = |reason: String| SettingsError::Value {
                option: "--default-address-pool",
                value: format!("base={base},size={size}"),
                reason,
            };
            let base: Prefix = base.parse().map_err(|error| wrong(format!("{error}")))?;
            let width = if base.address().is_ipv4() { 32 } else { 128 };
            let size: u8 = size
                .parse()
                .map_err(|_| wrong("size is a prefix length".to_owned()))?;
            if size < base.length() || size > width {
                return Err(wrong(format!(
                    "size is a prefix length from {} (the base's) to {width}",
                    base.length()
                )));
            }
            Ok(AddressPool {
                base: base.masked(),
                size,
            })
        })
        .collect()
}

/// Whether the host's own input rules decide about published ports.
pub(super) fn respects_host(file: &mut File, flag: Option<String>) -> Result<bool, SettingsError> {
    match file.text("firewall", flag)?.as_deref() {
        None | Some("own") => Ok(false),
        Some("respect-host") => Ok(true),
        Some(other) => Err(SettingsError::Value {
            option: "--firewall",
            value: other.to_owned(),
            reason: "it is own or respect-host".to_owned(),
        }),
    }
}
