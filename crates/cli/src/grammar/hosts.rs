//! Names and addresses beside networks: `--add-host`, `--dns`, `--dns-search`, `--link`.

use std::net::IpAddr;

/// `name:address` or `name=address`; the API takes the first form.
pub fn add_host(text: &str) -> Result<String, String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = split.filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    if address == "host-gateway" {
        return Ok(format!("{name}:{address}"));
    }
    let bare = match address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
    {
        Some(inner) => inner,
        None => address,
    };
    if bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

pub fn check_add_host(text: &str) -> Result<(), String> {
    add_host(text).map(|_| ())
}

pub fn check_dns(text: &str) -> Result<(), String> {
    match text.trim().parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// A lone dot means: no search domains.
pub fn check_dns_search(text: &str) -> Result<(), String> {
    let domain = text.trim_matches(' ');
    if domain == "." {
        return Ok(());
    }
    let labels = domain.trim_end_matches('.').split('.');
    let fine = domain.len() < 255
        && domain.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && labels.clone().all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        });
    if fine {
        Ok(())
    } else {
        Err(format!("{text} is not a valid domain"))
    }
}

/// `name` or `name:alias`.
pub fn check_link(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("empty string specified for links".into());
    }
    if text.matches(':').count() > 1 {
        return Err(format!("bad format for links: {text}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_forms() {
        assert_eq!(add_host("a:10.0.0.1"), Ok("a:10.0.0.1".into()));
        assert_eq!(add_host("a=::1"), Ok("a:::1".into()));
        assert_eq!(add_host("a:[::1]"), Ok("a:::1".into()));
        assert_eq!(add_host("a:host-gateway"), Ok("a:host-gateway".into()));
        assert_eq!(add_host("foo"), Err("bad format for add-host: \"foo\"".into()));
        assert_eq!(
            add_host("a:x"),
            Err("invalid IP address in add-host: \"x\"".into())
        );
        assert!(check_dns("foo").is_err() && check_dns("::1").is_ok());
        assert!(
            check_dns_search(".").is_ok()
                && check_dns_search("a.b").is_ok()
                && check_dns_search("..").is_err()
        );
        assert_eq!(check_link("a:b:c"), Err("bad format for links: a:b:c".into()));
    }
}
