//! The options of the `local` driver: `type`, `device` and `o`, as mount(8) takes them.

use std::collections::BTreeMap;

use crate::{VolumeError, quota};

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
    if let Some(size) = options.get("size") {
        let why = match quota::parse(size) {
            None => Some("a size is a number of bytes, or of k, m, g, t"),
            Some(0) => Some("it leaves no room for anything"),
            Some(_) if options.contains_key("device") => Some(
                "what the options mount has a size of its own: give it in o=, where the filesystem takes one",
            ),
            Some(_) => None,
        };
        if let Some(why) = why {
            return Err(VolumeError::Size {
                name: name.to_owned(),
                size: size.clone(),
                why,
            });
        }
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
        assert_eq!(verdict(&[("size", "1g")]), Ok(()));
        for (size, why) in [("much", "a size is a number"), ("0", "no room")] {
            let error = verdict(&[("size", size)]).unwrap_err();
            assert!(
                error.starts_with(&format!("create vol: invalid size {size:?}: ")) && error.contains(why)
            );
        }
        let mounted = verdict(&[("size", "1g"), ("type", "tmpfs"), ("device", "tmpfs")]);
        assert!(mounted.unwrap_err().contains("o="));
    }
}
