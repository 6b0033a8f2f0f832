//! `--mount key=value,…` and `--volume [source:]target[:options]`.

use super::csv;
use crate::flags::parse::parse_bool;
use crate::format::size;
use api_types::{BindOptions, Empty, ImageOptions, Map, Mount, MountDriver, TmpfsOptions, VolumeOptions};

/// Reads one `--mount`.
pub fn mount(text: &str) -> Result<Mount, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("value is empty".into());
    }
    let mut mount = Mount {
        kind: "volume".into(),
        ..Mount::default()
    };
    for field in csv::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        if key.trim() != key {
            let key = key.trim();
            return Err(format!(
                "invalid option '{key}' in '{field}': option should not have whitespace"
            ));
        }
        if let Some(value) = value {
            if value.trim().is_empty() {
                return Err(format!("invalid value for '{key}': value is empty"));
            }
            if value.trim() != value {
                return Err(format!(
                    "invalid value for '{key}' in '{field}': value should not have whitespace"
                ));
            }
        }
        // Not Docker's, and told apart from what may be.
        if key == "U" {
            if parse_bool(value.unwrap_or("true")) == Some(true) {
                mount.id_map.push("U".to_owned());
            }
            continue;
        }
        let key = key.to_ascii_lowercase();
        let boolean = |value: Option<&str>| {
            match value {
            None => Ok(true),
            Some(text) => parse_bool(text).ok_or_else(|| {
                format!("invalid value for '{key}': invalid boolean value ({text:?}): must be one of \"true\", \"1\", \"false\", or \"0\" (default \"true\")")
            }),
        }
        };
        if value.is_none()
            && !matches!(
                key.as_str(),
                "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src"
            )
        {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        }
        let given = value.unwrap_or_default();
        match key.as_str() {
            "type" => mount.kind = given.to_ascii_lowercase(),
            "source" | "src" => mount.source = absolute(given),
            "target" | "dst" | "destination" => mount.target = given.to_owned(),
            "readonly" | "ro" => mount.read_only = boolean(value)?,
            "consistency" => mount.consistency = given.to_ascii_lowercase(),
            "bind-propagation" => bind(&mut mount).propagation = given.to_ascii_lowercase(),
            "bind-nonrecursive" => {
                return Err("bind-nonrecursive is deprecated, use bind-recursive=disabled instead".into());
            }
            "bind-recursive" => match given {
                "enabled" => {}
                "disabled" => bind(&mut mount).non_recursive = true,
                "writable" => bind(&mut mount).read_only_non_recursive = true,
                "readonly" => bind(&mut mount).read_only_force_recursive = true,
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {given} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            },
            "bind-create-src" => bind(&mut mount).create_mountpoint = boolean(value)?,
            "volume-subpath" => volume(&mut mount).subpath = given.to_owned(),
            "volume-nocopy" => volume(&mut mount).no_copy = boolean(value)?,
            "volume-label" => pair(&mut volume(&mut mount).labels, given),
            "volume-driver" => driver(&mut mount).name = given.to_owned(),
            "volume-opt" => pair(&mut driver(&mut mount).options, given),
            "image-subpath" => {
                mount
                    .image_options
                    .get_or_insert_with(ImageOptions::default)
                    .subpath = given.to_owned();
            }
            "idmap" => mount.id_map.push(given.to_owned()),
            "tmpfs-size" => {
                let bytes = size::parse(given).map_err(|_| format!("invalid value for {key}: {given}"))?;
                tmpfs(&mut mount).size_bytes = bytes;
            }
            "tmpfs-mode" => {
                let mode =
                    u32::from_str_radix(given, 8).map_err(|_| format!("invalid value for {key}: {given}"))?;
                tmpfs(&mut mount).mode = mode;
            }
            _ => return Err(format!("unknown option '{key}' in '{field}'")),
        }
    }
    validate(&mount)?;
    Ok(mount)
}

fn validate(mount: &Mount) -> Result<(), String> {
    let kind = mount.kind.as_str();
    if kind.is_empty() {
        return Err("type is required".into());
    }
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    for (present, wants, prefix) in [
        (mount.bind_options.is_some(), "bind", "bind-*"),
        (mount.volume_options.is_some(), "volume", "volume-*"),
        (mount.image_options.is_some(), "image", "image-*"),
        (mount.tmpfs_options.is_some(), "tmpfs", "tmpfs-*"),
    ] {
        if present && kind != wants {
            return Err(format!("cannot mix '{prefix}' options with mount type '{kind}'"));
        }
    }
    if mount.read_only
        && let Some(options) = &mount.bind_options
    {
        let private = options.propagation == "rprivate" || options.propagation.is_empty();
        if options.read_only_force_recursive && options.propagation != "rprivate" && !private {
            return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction".into());
        }
    } else if let Some(options) = &mount.bind_options {
        if options.read_only_non_recursive {
            return Err(
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".into(),
            );
        }
        if options.read_only_force_recursive {
            return Err(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".into(),
            );
        }
    }
    Ok(())
}

/// A path that starts with a dot is relative to the client's directory.
pub fn absolute(path: &str) -> String {
    if !path.starts_with('.') {
        return path.to_owned();
    }
    match std::env::current_dir() {
        Ok(here) => clean(&format!("{}/{path}", here.display())),
        Err(_) => path.to_owned(),
    }
}

/// Go's path.Clean.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut out: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match out.last() {
                Some(last) if *last != ".." => {
                    out.pop();
                }
                _ if rooted => {}
                _ => out.push(".."),
            },
            part => out.push(part),
        }
    }
    match (rooted, out.is_empty()) {
        (true, _) => format!("/{}", out.join("/")),
        (false, true) => ".".into(),
        (false, false) => out.join("/"),
    }
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}
fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(VolumeOptions::default)
}
fn driver(mount: &mut Mount) -> &mut MountDriver {
    volume(mount)
        .driver_config
        .get_or_insert_with(MountDriver::default)
}
fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default)
}
fn pair(map: &mut Map<String>, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    map.insert(key.to_owned(), value.to_owned());
}

/// `--volume`: what is bound or named goes to `Binds`, a bare target to the anonymous volumes.
pub fn volumes(specs: &[String]) -> Result<(Vec<String>, Map<Empty>), String> {
    let mut binds = Vec::new();
    let mut anonymous = Map::null();
    for spec in specs {
        if spec.is_empty() {
            return Err("invalid empty volume spec".into());
        }
        if spec.len() > 2 {
            let parts: Vec<&str> = spec.split(':').collect();
            if parts.iter().any(|part| part.is_empty()) {
                return Err(format!("invalid spec: {spec}: empty section between colons"));
            }
            if parts.len() > 3 {
                return Err(format!("invalid spec: {spec}: too many colons"));
            }
            if let Some((source, rest)) = spec.split_once(':') {
                let bind = format!("{}:{rest}", absolute(source));
                if !binds.contains(&bind) {
                    binds.push(bind);
                }
                continue;
            }
        }
        anonymous.insert(spec.clone(), Empty {});
    }
    Ok((binds, anonymous))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match mount(text) {
            Ok(mount) => serde_json::to_string(&mount).unwrap(),
            Err(error) => error,
        }
    }

    #[test]
    fn mount_forms() {
        for (text, want) in [
            (
                "type=bind,src=/a,dst=/b,ro",
                r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}"#,
            ),
            ("target=/b", r#"{"Type":"volume","Target":"/b"}"#),
            (
                "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}}"#,
            ),
            (
                r#"src=v,dst=/v,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=a,b""#,
                r#"{"Type":"volume","Source":"v","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"o":"a,b","type":"nfs"}}}}"#,
            ),
            (
                "type=bind,src=/a,dst=/b,idmap=1000:1000:1,idmap=33@70:70:1",
                r#"{"Type":"bind","Source":"/a","Target":"/b","IDMap":["1000:1000:1","33@70:70:1"]}"#,
            ),
            (
                "src=v,dst=/v,U",
                r#"{"Type":"volume","Source":"v","Target":"/v","IDMap":["U"]}"#,
            ),
            ("type=foo", "target is required"),
            (
                "type=bind,dst=/x,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            ("bogus=1", "unknown option 'bogus' in 'bogus=1'"),
            ("type", "invalid field 'type' must be a key=value pair"),
            (
                "type=bind,dst=/x,bind-recursive=x",
                "invalid value for bind-recursive: x (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
            ),
        ] {
            assert_eq!(show(text), want, "{text}");
        }
    }

    #[test]
    fn volume_forms() {
        let specs = ["/a:/b:ro", "name:/c", "/anon"].map(String::from);
        let (binds, anonymous) = volumes(&specs).unwrap();
        assert_eq!(binds, ["/a:/b:ro", "name:/c"]);
        assert_eq!(serde_json::to_string(&anonymous).unwrap(), r#"{"/anon":{}}"#);
        assert_eq!(
            volumes(&["a:b:c:d".into()]),
            Err("invalid spec: a:b:c:d: too many colons".into())
        );
        assert_eq!(clean("/a/./b/../c//"), "/a/c");
        assert!(absolute("./x").ends_with("/x") && absolute("./x").starts_with('/'));
    }
}
