//! Addresses and prefixes on their way in: kept as strings, but only in a form that Go's `netip` would accept.
//!
//! A refusal carries the wording of `netip.ParseAddr` and `netip.ParsePrefix`, because clients see it inside
//! `invalid JSON: …`. An empty string means "not given" and passes.

use std::net::{IpAddr, Ipv6Addr};

use serde::de::{Deserialize, Deserializer, Error};

use crate::collection::{List, Map};

/// Checks one address; the error is Go's text.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    let refuse = |why: &str| Err(format!("ParseAddr({text:?}): {why}"));
    for byte in text.bytes() {
        match byte {
            b'.' => return parse_v4(text),
            b':' => {
                // A zone is legal in Go's addresses; the engine has no use for one and treats it as part of the text.
                let plain = text.split_once('%').map_or(text, |(plain, _)| plain);
                return match plain.parse::<Ipv6Addr>() {
                    Ok(address) => Ok(IpAddr::V6(address)),
                    Err(_) => refuse("invalid IPv6 address"),
                };
            }
            b'%' => return refuse("missing IPv6 address"),
            _ => {}
        }
    }
    refuse("unable to parse IP")
}

fn parse_v4(text: &str) -> Result<IpAddr, String> {
    let refuse = |why: &str| Err(format!("ParseAddr({text:?}): {why}"));
    let fields: Vec<&str> = text.split('.').collect();
    let mut octets = [0u8; 4];
    for (index, field) in fields.iter().enumerate() {
        if field.is_empty() {
            return refuse("IPv4 field must have at least one digit");
        }
        if !field.bytes().all(|byte| byte.is_ascii_digit()) {
            return refuse("unexpected character");
        }
        if field.len() > 1 && field.starts_with('0') {
            return refuse("IPv4 field has octet with leading zero");
        }
        let Ok(value) = field.parse::<u8>() else {
            return refuse("IPv4 field has value >255");
        };
        match octets.get_mut(index) {
            Some(octet) => *octet = value,
            None => return refuse("IPv4 address too long"),
        }
    }
    if fields.len() < 4 {
        return refuse("IPv4 address too short");
    }
    Ok(IpAddr::from(octets))
}

/// Checks one prefix (`address/bits`); the error is Go's text.
pub fn parse_prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let refuse = |why: &str| Err(format!("netip.ParsePrefix({text:?}): {why}"));
    let Some((address, bits)) = text.rsplit_once('/') else {
        return refuse("no '/'");
    };
    let address = match parse_address(address) {
        Ok(address) => address,
        Err(why) => return refuse(&why),
    };
    if address.is_ipv6() && text.contains('%') {
        return refuse("IPv6 zones cannot be present in a prefix");
    }
    let plain = !bits.is_empty()
        && bits.bytes().all(|byte| byte.is_ascii_digit())
        && (bits.len() == 1 || !bits.starts_with('0'));
    let limit = if address.is_ipv4() { 32 } else { 128 };
    match bits.parse::<u32>() {
        Ok(value) if plain && value <= limit => Ok((address, value as u8)),
        Ok(_) if plain => refuse("prefix length out of range"),
        _ => refuse(&format!("bad bits after slash: {bits:?}")),
    }
}

fn checked_address<E: Error>(text: String) -> Result<String, E> {
    if !text.is_empty() {
        parse_address(&text).map_err(E::custom)?;
    }
    Ok(text)
}

pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked_address(String::deserialize(deserializer)?)
}

pub(crate) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<List<String>, D::Error> {
    let list = List::<String>::deserialize(deserializer)?;
    for text in &list {
        checked_address::<D::Error>(text.clone())?;
    }
    Ok(list)
}

pub(crate) fn address_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String>, D::Error> {
    let map = Map::<String>::deserialize(deserializer)?;
    for text in map.values() {
        checked_address::<D::Error>(text.clone())?;
    }
    Ok(map)
}

pub(crate) fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.is_empty() {
        parse_prefix(&text).map_err(D::Error::custom)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_speak_go() {
        assert_eq!(
            parse_prefix("300.1.1.0/24").unwrap_err(),
            r#"netip.ParsePrefix("300.1.1.0/24"): ParseAddr("300.1.1.0"): IPv4 field has value >255"#
        );
        assert_eq!(
            parse_prefix("10.0.0.0").unwrap_err(),
            r#"netip.ParsePrefix("10.0.0.0"): no '/'"#
        );
        assert_eq!(
            parse_prefix("10.0.0.0/33").unwrap_err(),
            r#"netip.ParsePrefix("10.0.0.0/33"): prefix length out of range"#
        );
        assert_eq!(
            parse_address("x").unwrap_err(),
            r#"ParseAddr("x"): unable to parse IP"#
        );
        assert_eq!(
            parse_address("1.2.3").unwrap_err(),
            r#"ParseAddr("1.2.3"): IPv4 address too short"#
        );
    }

    #[test]
    fn good_ones_pass() {
        assert!(parse_address("10.1.2.3").is_ok());
        assert!(parse_address("fd00::1").is_ok());
        assert_eq!(parse_prefix("fd00::/64").unwrap().1, 64);
    }
}
