//! Descriptions become part of a container's configuration.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use spec::runtime::{Device, DeviceCgroup, Hook, Mount, Spec};

use super::document::{Bind, Edits, HookEntry, Node};
use crate::error::{Error, Result};

/// Adds what the devices need. A later word on a variable or a place counts.
pub(crate) fn apply(spec: &mut Spec, all: &[&Edits]) -> Result<()> {
    for edits in all {
        if let Some(process) = &mut spec.process {
            for setting in &edits.env {
                let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
                process.env.retain(|known| name(known) != name(setting));
                process.env.push(setting.clone());
            }
            for gid in &edits.additional_gids {
                // Group 0 is what a container without a user has anyway.
                if *gid != 0 && !process.user.additional_gids.contains(gid) {
                    process.user.additional_gids.push(*gid);
                }
            }
        }
        for node in &edits.device_nodes {
            add_node(spec, node)?;
        }
        for bind in &edits.mounts {
            add_mount(spec, bind);
        }
        for hook in &edits.hooks {
            add_hook(spec, hook);
        }
    }
    Ok(())
}

fn add_node(spec: &mut Spec, node: &Node) -> Result<()> {
    let host = node.host_path.as_ref().unwrap_or(&node.path);
    let (kind, major, minor) = match (node.r#type.as_deref(), node.major, node.minor) {
        (Some("p"), ..) => ("p".to_owned(), 0, 0),
        (Some(kind @ ("b" | "c" | "u")), Some(major), Some(minor)) => (kind.to_owned(), major, minor),
        (wanted, ..) => {
            let failed = |reason: String| {
                Error::invalid(format!(
                    "CDI device injection failed: device node {}: {reason}",
                    host.display()
                ))
            };
            let meta = std::fs::metadata(host).map_err(|error| failed(error.to_string()))?;
            let kind = match meta.file_type() {
                kind if kind.is_char_device() => "c",
                kind if kind.is_block_device() => "b",
                _ => return Err(failed("not a device node".to_owned())),
            };
            if wanted.is_some_and(|wanted| !wanted.is_empty() && wanted != kind) {
                return Err(failed(format!(
                    "it is of type {kind}, not {}",
                    wanted.unwrap_or_default()
                )));
            }
            let number = meta.rdev();
            (
                kind.to_owned(),
                i64::from(rustix::fs::major(number)),
                i64::from(rustix::fs::minor(number)),
            )
        }
    };
    let user = spec
        .process
        .as_ref()
        .map(|process| (process.user.uid, process.user.gid))
        .unwrap_or_default();
    let own = |id: u32| (id > 0).then_some(id);
    let Some(linux) = &mut spec.linux else {
        return Ok(());
    };
    linux.devices.retain(|device| device.path != node.path);
    linux.devices.push(Device {
        path: node.path.clone(),
        r#type: kind.clone(),
        major,
        minor,
        file_mode: node.file_mode,
        uid: node.uid.or(own(user.0)),
        gid: node.gid.or(own(user.1)),
    });
    if kind != "p" {
        let access = node
            .permissions
            .as_deref()
            .filter(|text| !text.is_empty())
            .unwrap_or("rwm");
        let rule = DeviceCgroup {
            allow: true,
            r#type: Some(if kind == "b" { "b" } else { "c" }.to_owned()),
            major: Some(major),
            minor: Some(minor),
            access: access.to_owned(),
        };
        linux.resources.get_or_insert_default().devices.push(rule);
    }
    Ok(())
}

fn add_mount(spec: &mut Spec, bind: &Bind) {
    let mut options = bind.options.clone();
    let kind = bind.r#type.clone().filter(|kind| !kind.is_empty());
    if kind.is_none() && !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.push("rbind".to_owned());
    }
    spec.mounts
        .retain(|mount| mount.destination != bind.container_path);
    spec.mounts.push(Mount {
        destination: bind.container_path.clone(),
        r#type: Some(kind.unwrap_or_else(|| "bind".to_owned())),
        source: Some(bind.host_path.clone()),
        options,
        ..Mount::default()
    });
}

fn add_hook(spec: &mut Spec, entry: &HookEntry) {
    let hooks = spec.hooks.get_or_insert_default();
    let list = match entry.hook_name.as_str() {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        _ => &mut hooks.poststart,
    };
    list.push(Hook {
        path: entry.path.clone(),
        args: entry.args.clone(),
        env: entry.env.clone(),
        timeout: entry.timeout,
    });
}

#[cfg(test)]
mod tests {
    use super::super::document::Document;
    use super::*;

    #[test]
    fn everything_arrives() {
        let text = r#"{"cdiVersion":"0.7.0","kind":"v.com/c","devices":[{"name":"x","containerEdits":{
            "env":["A=new","B=2"],"additionalGids":[0,44],
            "deviceNodes":[{"path":"/dev/x","hostPath":"/dev/zero","permissions":"r"},{"path":"/dev/y","type":"c","major":7,"minor":8,"uid":5}],
            "mounts":[{"hostPath":"/opt","containerPath":"/etc/x"}],
            "hooks":[{"hookName":"createContainer","path":"/bin/true"}]}}]}"#;
        let document = Document::from_json(text).unwrap();
        let mut spec = runtime::template::spec();
        let process = spec.process.as_mut().unwrap();
        process.env.push("A=old".to_owned());
        process.user.uid = 9;
        apply(&mut spec, &[document.device("v.com/c=x").unwrap()]).unwrap();
        let process = spec.process.unwrap();
        assert!(
            process.env.ends_with(&["A=new".to_owned(), "B=2".to_owned()])
                && !process.env.contains(&"A=old".to_owned())
        );
        assert_eq!(process.user.additional_gids, [44]);
        let linux = spec.linux.unwrap();
        let numbers: Vec<_> = linux.devices.iter().map(|d| (d.major, d.minor, d.uid)).collect();
        assert_eq!(numbers, [(1, 5, Some(9)), (7, 8, Some(5))]);
        let rules = linux.resources.unwrap().devices;
        let access: Vec<_> = rules
            .iter()
            .map(|rule| (rule.major, rule.access.as_str()))
            .collect();
        assert_eq!(access, [(Some(1), "r"), (Some(7), "rwm")]);
        assert_eq!(spec.mounts.last().unwrap().options, ["rbind"]);
        assert_eq!(spec.hooks.unwrap().create_container.len(), 1);
    }
}
