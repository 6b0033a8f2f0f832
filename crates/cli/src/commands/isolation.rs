//! `inspect --isolation` for people: what separates a container from the host, one table per subject, each with what
//! was asked beside what the process has.
//!
//! Names of files come from inside the container; control characters in them never reach the terminal.

use api_types::isolation::{CapabilityView, Compared, IdRange, Isolation};

use crate::format::table::{DOCKER, align};

pub fn tables(isolation: &Isolation) -> String {
    let mut out = format!(
        "{} ({:.12}), process {}\n",
        isolation.name, isolation.id, isolation.pid
    );
    let sections = [
        namespaces(isolation),
        rights(isolation),
        limits(isolation),
        mounts(isolation),
        devices(isolation),
        descriptors(isolation),
    ];
    for section in sections {
        out.push('\n');
        out.push_str(&align(&section, DOCKER));
    }
    out
}

/// Lines of cells under a heading.
fn rows(heading: &[&str], lines: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = heading.join("\t");
    out.push('\n');
    for line in lines {
        let cells: Vec<String> = line.iter().map(|cell| printable(cell)).collect();
        out.push_str(&cells.join("\t"));
        out.push('\n');
    }
    out
}

fn printable(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect(),
    }
}

fn namespaces(isolation: &Isolation) -> String {
    let row = |namespace: &api_types::isolation::NamespaceView| {
        let word = |host: bool| if host { "host" } else { "own" }.to_owned();
        let mut shared = namespace.shared_with.clone();
        if namespace.host {
            shared.insert(0, "host".to_owned());
        }
        vec![
            namespace.r#type.clone(),
            namespace.inode.to_string(),
            word(!namespace.asked),
            word(namespace.host),
            shared.join(", "),
        ]
    };
    rows(
        &["NAMESPACE", "INODE", "ASKED", "ACTUAL", "SHARED WITH"],
        isolation.namespaces.iter().map(row),
    )
}

fn rights(isolation: &Isolation) -> String {
    let map = |ranges: &[IdRange]| {
        let range = |r: &IdRange| {
            format!(
                "{}-{} is {}",
                r.inside,
                u64::from(r.inside) + u64::from(r.count.max(1)) - 1,
                r.outside
            )
        };
        ranges.iter().map(range).collect::<Vec<_>>().join(", ")
    };
    let user = &isolation.user;
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    let seccomp = &isolation.seccomp;
    let filter = match seccomp.default_action.as_str() {
        "" => seccomp.mode.clone(),
        action => format!(
            "{} ({} loaded): {} calls allowed, {} on conditions, others {action}",
            seccomp.mode, seccomp.filters, seccomp.allowed, seccomp.conditional
        ),
    };
    let CapabilityView {
        asked,
        effective,
        permitted,
        bounding,
        inheritable,
        ambient,
    } = &isolation.capabilities;
    let flag = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let Compared { asked: label, actual } = &isolation.label;
    let line = |name: &str, asked: String, actual: String| vec![name.to_owned(), asked, actual];
    rows(
        &["RIGHT", "ASKED", "ACTUAL"],
        [
            line(
                "user on the host",
                String::new(),
                format!("{}:{}", user.uid, user.gid),
            ),
            line("groups on the host", String::new(), groups.join(" ")),
            line("user map", String::new(), map(&user.uid_map)),
            line("group map", String::new(), map(&user.gid_map)),
            line("capabilities, effective", String::new(), names(effective)),
            line("capabilities, permitted", String::new(), names(permitted)),
            line("capabilities, bounding", names(asked), names(bounding)),
            line("capabilities, inheritable", String::new(), names(inheritable)),
            line("capabilities, ambient", String::new(), names(ambient)),
            line(
                "no new privileges",
                flag(isolation.no_new_privileges.asked),
                flag(isolation.no_new_privileges.actual),
            ),
            line("system calls", seccomp.asked.clone(), filter),
            line("security label", label.clone(), actual.clone()),
        ],
    )
}

/// Without the prefix that all share; the whole set in one word.
fn names(set: &[String]) -> String {
    match set.len() {
        0 => "none".to_owned(),
        41.. => format!("all {}", set.len()),
        _ => {
            let short = set.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name));
            short.collect::<Vec<_>>().join(" ")
        }
    }
}

fn limits(isolation: &Isolation) -> String {
    let row = |limit: &api_types::isolation::LimitView| {
        vec![
            limit.name.clone(),
            limit.asked.clone(),
            limit.actual.clone(),
            limit.used.clone(),
            limit.file.clone(),
        ]
    };
    let heading = ["LIMIT", "ASKED", "ACTUAL", "USED", &isolation.cgroup.path];
    rows(&heading, isolation.cgroup.limits.iter().map(row))
}

fn mounts(isolation: &Isolation) -> String {
    let row = |mount: &api_types::isolation::MountView| {
        vec![
            mount.destination.clone(),
            mount.origin.clone(),
            mount.filesystem.clone(),
            mount.options.clone(),
        ]
    };
    rows(
        &["MOUNT", "ORIGIN", "TYPE", "OPTIONS"],
        isolation.mounts.iter().map(row),
    )
}

fn devices(isolation: &Isolation) -> String {
    let devices = &isolation.devices;
    let actual = match &devices.allowed {
        Some(rules) => rules.join(", "),
        None => "(the kernel does not tell)".to_owned(),
    };
    rows(
        &["DEVICES", "RULES"],
        [
            vec!["nodes".to_owned(), devices.nodes.join(", ")],
            vec!["asked".to_owned(), devices.asked.join(", ")],
            vec!["actual".to_owned(), actual],
        ],
    )
}

fn descriptors(isolation: &Isolation) -> String {
    let row = |descriptor: &api_types::isolation::DescriptorView| {
        vec![descriptor.number.to_string(), descriptor.target.clone()]
    };
    rows(&["DESCRIPTOR", "LEADS TO"], isolation.descriptors.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::isolation::{DescriptorView, NamespaceView};

    #[test]
    fn what_is_shared_and_nothing_that_moves_the_cursor() {
        let isolation = Isolation {
            name: "web".into(),
            namespaces: vec![NamespaceView {
                r#type: "net".into(),
                inode: 7,
                asked: true,
                host: false,
                shared_with: vec!["db".into()],
            }],
            descriptors: vec![DescriptorView {
                number: 3,
                target: "/x\x1b[2J\ty".into(),
            }],
            ..Isolation::default()
        };
        let text = tables(&isolation);
        assert!(
            text.contains("net         7         own       own       db\n"),
            "{text}"
        );
        assert!(text.contains("/x?[2J?y"), "{text}");
        assert!(text.contains("capabilities, ambient"), "{text}");
    }
}
