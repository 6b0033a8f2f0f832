//! A process as /proc shows it to the host.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use api_types::isolation::{DescriptorView, IdRange, MountView, UserView};

/// More descriptors than this are not listed.
const MAX_DESCRIPTORS: usize = 1024;

pub(super) struct Process {
    pub(super) status: Status,
    pub(super) namespaces: BTreeMap<String, u64>,
    pub(super) mounts: Vec<MountView>,
    pub(super) descriptors: Vec<DescriptorView>,
    pub(super) label: String,
    uid_map: Vec<IdRange>,
    gid_map: Vec<IdRange>,
}

impl Process {
    pub(super) fn read(pid: i32) -> io::Result<Process> {
        let base = format!("/proc/{pid}");
        let text = |name: &str| std::fs::read_to_string(format!("{base}/{name}"));
        Ok(Process {
            status: Status(text("status")?),
            namespaces: namespaces(&pid.to_string())?,
            mounts: text("mountinfo")?.lines().filter_map(mount).collect(),
            descriptors: descriptors(Path::new(&format!("{base}/fd")))?,
            // Without a security module reading fails.
            label: text("attr/current")
                .unwrap_or_default()
                .trim_end_matches(['\0', '\n'])
                .to_owned(),
            uid_map: ranges(&text("uid_map")?),
            gid_map: ranges(&text("gid_map")?),
        })
    }

    pub(super) fn user(&self) -> UserView {
        let numbers = |name: &str| -> Vec<u32> {
            let words = self.status.field(name).split_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        };
        // Real, effective, saved, filesystem: what counts is the effective one.
        let effective = |name: &str| numbers(name).get(1).copied().unwrap_or_default();
        UserView {
            uid: effective("Uid"),
            gid: effective("Gid"),
            groups: numbers("Groups"),
            uid_map: self.uid_map.clone(),
            gid_map: self.gid_map.clone(),
        }
    }
}

/// The text of /proc/PID/status.
pub(super) struct Status(String);

impl Status {
    pub(super) fn field(&self, name: &str) -> &str {
        let value = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    }

    pub(super) fn capabilities(&self, name: &str) -> Vec<String> {
        let bits = u64::from_str_radix(self.field(name), 16).unwrap_or_default();
        let names = (0u32..).zip(sys::caps::NAMES);
        names
            .filter(|(number, _)| bits >> number & 1 == 1)
            .map(|(_, name)| name.to_owned())
            .collect()
    }
}

/// By the names in /proc/PID/ns; what only counts for children is left out.
pub(super) fn namespaces(pid: &str) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/ns"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with("_for_children") {
            continue;
        }
        let target = std::fs::read_link(entry.path())?.to_string_lossy().into_owned();
        let inode = target
            .split_once('[')
            .and_then(|(_, rest)| rest.strip_suffix(']')?.parse().ok());
        found.extend(inode.map(|inode| (name, inode)));
    }
    Ok(found)
}

fn descriptors(directory: &Path) -> io::Result<Vec<DescriptorView>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)?.take(MAX_DESCRIPTORS) {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // One that was closed meanwhile is not there.
        if let (Some(number), Ok(target)) = (number, std::fs::read_link(entry.path())) {
            found.push(DescriptorView {
                number,
                target: target.to_string_lossy().into_owned(),
            });
        }
    }
    found.sort_by_key(|descriptor| descriptor.number);
    Ok(found)
}

fn ranges(text: &str) -> Vec<IdRange> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        Some(IdRange {
            inside: words.next()??,
            outside: words.next()??,
            count: words.next()??,
        })
    };
    text.lines().filter_map(line).collect()
}

/// A line of mountinfo, proc(5).
fn mount(line: &str) -> Option<MountView> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let mut after = after.split(' ');
    let options = *before.get(5)?;
    Some(MountView {
        destination: unescape(before.get(4)?),
        filesystem: after.next()?.to_owned(),
        source: unescape(after.next()?),
        read_only: options.split(',').any(|option| option == "ro"),
        options: options.to_owned(),
        origin: String::new(),
    })
}

/// The kernel writes blanks, backslashes and line ends as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| first == b'\\');
        let value = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &more[3..];
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = r"36 35 98:0 /mnt1 /a\040b rw,noatime master:1 - ext3 /dev/ro\134ot ro,errors=continue";
        let view = mount(line).unwrap();
        assert_eq!(
            (view.destination.as_str(), view.source.as_str()),
            ("/a b", r"/dev/ro\ot")
        );
        assert!(!view.read_only && view.filesystem == "ext3");
        assert_eq!(mount("nonsense"), None);
        assert_eq!(unescape(r"\x\1"), r"\x\1");
    }

    #[test]
    fn our_own_process() {
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(own.namespaces, namespaces("self").unwrap());
        assert!(own.namespaces.contains_key("mnt") && own.descriptors.iter().any(|d| d.number == 0));
        assert!(!own.uid_map.is_empty());
        let text = Status("CapEff:\t0000000000000021\nName:\tx\n".to_owned());
        assert_eq!(text.capabilities("CapEff"), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(text.field("CapBnd"), "");
    }
}
