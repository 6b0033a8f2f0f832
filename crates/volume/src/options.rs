//! The options of the `local` driver: `type`, `device` and `o`, as mount(8) takes them.

use std::collections::BTreeMap;

use crate::VolumeError;

/// Each option with those it is useless without.
const KNOWN: [(&str, &[&str]); 4] = [
    ("type", &["device"]),
    ("device", &["type"]),
    ("o", &["device", "type"]),
    ("size", &[]),
];

pub(crate) fn check(name: &str, options: &BTreeMap<String, String>) -> Result<(), VolumeError> {
    for option in options.keys() {
        if !KNOWN.iter().any(|(known, _)| known == option) {
            return Err(VolumeError::UnknownOption {
                name: name.to_owned(),
                option: option.clone(),
            });
        }
    }
    if options.contains_key("size") {
        return Err(VolumeError::NoQuota(name.to_owned()));
    }
    for (option, needed) in KNOWN {
        if !options.contains_key(option) {
            continue;
        }
        if let Some(missing) = needed.iter().find(|needed| !options.contains_key(**needed)) {
            return Err(VolumeError::MissingOption {
                name: name.to_owned(),
                option: (*missing).to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(options: &[(&str, &str)]) -> Result<(), String> {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        check("vol", &options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_come_in_sets() {
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&[("type", "tmpfs"), ("device", "tmpfs")]), Ok(()));
        assert_eq!(
            verdict(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=h")]),
            Ok(())
        );
        assert_eq!(
            verdict(&[("type", "tmpfs")]),
            Err("create vol: missing required option: \"device\"".to_owned())
        );
        assert_eq!(
            verdict(&[("colour", "red")]),
            Err("create vol: invalid option: \"colour\"".to_owned())
        );
        assert_eq!(
            verdict(&[("size", "1g")]),
            Err("create vol: quota size requested but no quota support".to_owned())
        );
    }
}
