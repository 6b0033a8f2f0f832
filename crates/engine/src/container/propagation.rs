//! Whether mounts can come through a bind at all: that is up to the mount its source is on, and one that is private lets
//! nothing in or out, whatever the bind says.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::check::unescape;
use crate::error::{Error, Result};

/// Refuses a propagation that the source's mount cannot give.
pub(super) fn check(source: &str, propagation: &str) -> Result<()> {
    let shared = match propagation {
        "shared" | "rshared" => true,
        "slave" | "rslave" => false,
        _ => return Ok(()),
    };
    let on = mount_of(Path::new(source))
        .map_err(|error| Error::internal(format!("cannot find the mount that {source} is on: {error}")))?;
    let wanted = match (shared, on.shared, on.slave) {
        (_, true, _) | (false, _, true) => return Ok(()),
        (true, false, _) => "shared",
        (false, false, false) => "shared or slave",
    };
    Err(Error::internal(format!(
        "path {source} is mounted on {} but it is not a {wanted} mount",
        on.point.display()
    )))
}

/// A mount, as the kernel lists it.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    point: PathBuf,
    shared: bool,
    slave: bool,
}

/// The mount a path is on. By its number, since several may lie over each other in one place.
fn mount_of(path: &Path) -> io::Result<Mounted> {
    let id = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut lines = table.lines().filter_map(parse);
    let found = lines.find(|(number, _)| *number == id);
    found
        .map(|(_, mounted)| mounted)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not in /proc/self/mountinfo"))
}

/// `NUMBER PARENT DEVICE ROOT POINT OPTIONS [FIELD]... - TYPE SOURCE OPTIONS`, proc_pid_mountinfo(5).
fn parse(line: &str) -> Option<(u64, Mounted)> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let point = unescape(words.nth(3)?);
    let fields: Vec<&str> = words.skip(1).take_while(|word| *word != "-").collect();
    let has = |key: &str| fields.iter().any(|field| field.starts_with(key));
    let mounted = Mounted {
        point,
        shared: has("shared:"),
        slave: has("master:"),
    };
    Some((number, mounted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_mount_table() {
        let read = |line: &str| {
            let (number, mounted) = parse(line).unwrap();
            (
                number,
                mounted.point.display().to_string(),
                mounted.shared,
                mounted.slave,
            )
        };
        for (line, shared, slave) in [
            ("36 35 98:0 / /a\\040b rw,noatime - ext4 /dev/x rw", false, false),
            ("36 35 98:0 / /a\\040b rw shared:7 - ext4 /dev/x rw", true, false),
            (
                "36 35 98:0 / /a\\040b rw master:7 - ext4 shared:1 rw",
                false,
                true,
            ),
            (
                "36 35 98:0 / /a\\040b rw shared:9 master:7 - ext4 /dev/x rw",
                true,
                true,
            ),
        ] {
            assert_eq!(read(line), (36, "/a b".to_owned(), shared, slave), "{line}");
        }
        assert_eq!(parse("36 35"), None);
        assert!(
            mount_of(Path::new("/proc/self"))
                .unwrap()
                .point
                .starts_with("/proc")
        );
    }
}
