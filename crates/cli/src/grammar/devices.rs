//! `--device host[:container[:rwm]]`, CDI names, and `--device-cgroup-rule`.

use super::mounts::clean;
use api_types::{DeviceMapping, DeviceRequest, List};

/// Devices as the API takes them: mappings, and at most one request by CDI name.
pub fn devices(texts: &[String]) -> Result<(Vec<DeviceMapping>, Vec<DeviceRequest>), String> {
    let mut mappings = Vec::new();
    let mut names = Vec::new();
    for text in texts {
        if is_cdi(text) {
            names.push(text.clone());
        } else {
            mappings.push(mapping(text)?);
        }
    }
    let requests = match names.is_empty() {
        true => Vec::new(),
        false => vec![DeviceRequest {
            driver: "cdi".into(),
            device_ids: names.into(),
            ..DeviceRequest::default()
        }],
    };
    Ok((mappings, requests))
}

/// `vendor.com/class=name`
fn is_cdi(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    let word = |text: &str, extra: &[u8]| {
        text.bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    word(vendor, b"_-.") && word(class, b"_-.") && word(name, b"_-.:")
}

fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| b"rwm".contains(&byte))
        && text
            .bytes()
            .enumerate()
            .all(|(index, byte)| !text.bytes().take(index).any(|seen| seen == byte))
}

fn mapping(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
        [_, _, mode] => return Err(format!("bad mode specified: {mode}")),
        _ => return Err(format!("bad format for path: {text}")),
    };
    if host.is_empty() {
        return Err(format!("bad format for path: {text}"));
    }
    if !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    let same = parts.len() < 2 || (parts.len() == 2 && container == host);
    let host = if same { clean(host) } else { host.to_owned() };
    let container = if parts.len() < 3 {
        clean(container)
    } else {
        container.to_owned()
    };
    Ok(DeviceMapping {
        path_on_host: host,
        path_in_container: container,
        cgroup_permissions: mode.to_owned(),
    })
}

/// `c 1:3 rwm`
pub fn check_rule(text: &str) -> Result<(), String> {
    let bad = || Err(format!("invalid device cgroup format '{text}'"));
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, mode] = parts.as_slice() else {
        return bad();
    };
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some((major, minor)) = numbers.split_once(':') else {
        return bad();
    };
    if !matches!(*kind, "a" | "b" | "c") || !number(major) || !number(minor) || mode.len() > 3 {
        return bad();
    }
    if mode.is_empty() || !mode.bytes().all(|byte| b"rwm".contains(&byte)) {
        return bad();
    }
    Ok(())
}

/// Keeps `List` out of callers that only build requests.
pub fn list<T>(items: Vec<T>) -> List<T> {
    if items.is_empty() {
        List::null()
    } else {
        items.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_forms() {
        let one = |text: &str| {
            devices(&[text.to_owned()]).map(|(mappings, _)| {
                mappings
                    .into_iter()
                    .map(|m| {
                        format!(
                            "{} {} {}",
                            m.path_on_host, m.path_in_container, m.cgroup_permissions
                        )
                    })
                    .collect::<String>()
            })
        };
        assert_eq!(one("/dev/fuse"), Ok("/dev/fuse /dev/fuse rwm".into()));
        assert_eq!(one("/dev/fuse:r"), Ok("/dev/fuse /dev/fuse r".into()));
        assert_eq!(one("/dev/a:/dev/b:rw"), Ok("/dev/a /dev/b rw".into()));
        assert_eq!(one("a:b:c:d"), Err("bad format for path: a:b:c:d".into()));
        assert_eq!(one("/dev/a:/dev/b:x"), Err("bad mode specified: x".into()));
        assert_eq!(
            devices(&["vendor.com/gpu=all".into()]).unwrap().1[0]
                .device_ids
                .as_slice(),
            ["vendor.com/gpu=all"]
        );
        assert!(
            check_rule("c 1:3 rwm").is_ok()
                && check_rule("c 1:3").is_err()
                && check_rule("a *:* rwm").is_ok()
        );
    }
}
