//! Addresses of collectors, as their options give them.

use crate::forward::Address;

/// `scheme://rest`, where the scheme is one of Docker's transports.
pub(super) fn with_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    ["tcp", "tcp+tls", "udp", "unix", "unixgram", "tls"]
        .contains(&scheme)
        .then_some((scheme, rest))
}

/// `host`, `host:port`, `[v6]:port`.
pub(super) fn host_port(text: &str, default_port: Option<u16>) -> Result<Address, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("missing ']' in address")?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("too many colons in address"),
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = match port.ok_or("missing port in address")? {
        "" => default_port.ok_or("missing port in address")?,
        port => port.parse().map_err(|_| "the port is not a number up to 65535")?,
    };
    if host.contains(['/', '@', ' ']) {
        return Err("should not contain a path element");
    }
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let text = |text, default| host_port(text, default).map(|a| a.to_string());
        assert_eq!(text("a:1", None).unwrap(), "a:1");
        assert_eq!(text("a", Some(2)).unwrap(), "a:2");
        assert_eq!(text("[::1]:3", None).unwrap(), "[::1]:3");
        assert_eq!(text("[::1]", Some(4)).unwrap(), "[::1]:4");
        for wrong in ["a", "a:x", "a:70000", "::1", "[::1", "a/b:1"] {
            assert!(text(wrong, None).is_err(), "{wrong}");
        }
    }
}
