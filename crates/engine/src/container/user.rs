//! Who a container's process is: `USER` settings looked up in the container's own `/etc/passwd` and
//! `/etc/group`, which are read beneath its root and never trusted to be well-formed or small.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// A passwd or group file larger than this is not read further.
const LIMIT: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Resolves `user[:group]`, each a name or a number, with the additional groups a caller asks for.
pub(super) fn resolve(root: BorrowedFd<'_>, user: &str, group_add: &[String]) -> Result<Identity> {
    lookup(
        &read(root, "etc/passwd")?,
        &read(root, "etc/group")?,
        user,
        group_add,
    )
}

fn read(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => {
            return Err(Error::internal(format!(
                "cannot read /{path} of the container: {error}"
            )));
        }
    };
    // A device or pipe in its place is no user database.
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn lookup(passwd: &str, group: &str, wanted: &str, group_add: &[String]) -> Result<Identity> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 4
                && (fields[0] == user || number.is_some_and(|uid| fields[2].parse::<u32>().ok() == Some(uid)))
        });
    let mut identity = Identity {
        home: "/".to_owned(),
        ..Identity::default()
    };
    let mut name = "";
    match (&entry, number) {
        (Some(fields), _) => {
            let parse = |text: &str| {
                text.parse::<u32>().map_err(|_| {
                    Error::invalid(format!(
                        "/etc/passwd of the container has a damaged line for user {user:?}"
                    ))
                })
            };
            name = fields[0];
            identity.uid = parse(fields[2])?;
            identity.gid = parse(fields[3])?;
            if let Some(home) = fields.get(5).filter(|home| !home.is_empty()) {
                identity.home = (*home).to_owned();
            }
        }
        (None, Some(uid)) => identity.uid = uid,
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    }
    if i32::try_from(identity.uid).is_err() {
        return Err(Error::invalid(format!(
            "uid {} is outside of the range 0-2147483647",
            identity.uid
        )));
    }
    let groups: Vec<Vec<&str>> = group.lines().map(|line| line.split(':').collect()).collect();
    let find_group = |wanted: &str| -> Result<u32> {
        let by_name = groups
            .iter()
            .find(|f| f.len() >= 3 && f[0] == wanted)
            .and_then(|f| f[2].parse().ok());
        by_name
            .or_else(|| {
                wanted
                    .parse::<u32>()
                    .ok()
                    .filter(|gid| i32::try_from(*gid).is_ok())
            })
            .ok_or_else(|| {
                Error::invalid(format!(
                    "unable to find group {wanted}: no matching entries in group file"
                ))
            })
    };
    match wanted_group {
        // An explicit group is the only one, besides those that are added.
        Some(group) => identity.gid = find_group(group)?,
        None if !name.is_empty() => {
            identity.groups = groups
                .iter()
                .filter(|f| f.len() >= 4 && f[3].split(',').any(|member| member == name))
                .filter_map(|f| f[2].parse().ok())
                .collect();
        }
        None => {}
    }
    identity.groups.insert(0, identity.gid);
    for group in group_add {
        identity.groups.push(find_group(group)?);
    }
    let mut seen = std::collections::HashSet::new();
    identity.groups.retain(|gid| seen.insert(*gid));
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:www:/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,web\nstaff:x:50:\n";

    fn find(user: &str) -> Result<Identity> {
        lookup(PASSWD, GROUP, user, &[])
    }

    #[test]
    fn names_numbers_and_groups() {
        let root = find("").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert_eq!(root.groups, [0, 10]);
        assert_eq!(find("web").unwrap().groups, [44, 10]);
        assert_eq!(find("33").unwrap().gid, 44);
        assert_eq!(find("web:staff").unwrap().groups, [50]);
        assert_eq!(
            find("1000").unwrap(),
            Identity {
                uid: 1000,
                gid: 0,
                groups: vec![0],
                home: "/".into()
            }
        );
        assert_eq!(
            lookup(PASSWD, GROUP, "web", &["50".into(), "wheel".into()])
                .unwrap()
                .groups,
            [44, 10, 50]
        );
    }

    #[test]
    fn what_is_not_there() {
        assert_eq!(
            find("nobody").unwrap_err().message,
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert!(find("web:nope").is_err());
        assert!(find("4294967295").is_err());
        assert_eq!(lookup("", "", "5:6", &[]).unwrap().gid, 6);
    }
}
