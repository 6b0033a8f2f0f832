//! `--chown` and USER: names and numbers of users and groups, looked up in the image's own files.
//!
//! `user`, `user:group`, each by name or number. A number alone is user and group; a name alone brings its
//! group from /etc/passwd. The files are foreign: read beneath the root, bounded, by hand.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use sys::beneath::resolve_in_root;

use crate::error::BuildError;

/// The largest /etc/passwd or /etc/group that is read.
const MAX_FILE: u64 = 4 << 20;

/// The numbers `text` stands for in the image at `root`.
pub fn lookup(root: BorrowedFd<'_>, text: &str) -> Result<(u32, u32), BuildError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = user.parse::<u32>().ok();
    let entry = match number {
        Some(_) => None,
        None => find(&read(root, "etc/passwd")?, user),
    };
    let (uid, own_gid) = match (number, entry) {
        (Some(number), _) => (number, number),
        (None, Some(fields)) => {
            let own = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok());
            match (own(2), own(3)) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => return Err(unknown("user", user, "/etc/passwd")),
            }
        }
        (None, None) => return Err(unknown("user", user, "/etc/passwd")),
    };
    let gid = match group {
        None | Some("") => own_gid,
        Some(group) => match group.parse::<u32>() {
            Ok(number) => number,
            Err(_) => find(&read(root, "etc/group")?, group)
                .and_then(|fields| fields.get(2).and_then(|field| field.parse().ok()))
                .ok_or_else(|| unknown("group", group, "/etc/group"))?,
        },
    };
    Ok((uid, gid))
}

fn unknown(kind: &str, name: &str, file: &str) -> BuildError {
    BuildError::invalid(format!(
        "unable to find {kind} {name}: no matching entries in {file} of the image"
    ))
}

fn find(text: &str, name: &str) -> Option<Vec<String>> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').map(str::to_owned).collect())
}

/// A file of the image as text, empty where there is none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, BuildError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match resolve_in_root(root, path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(_) => return Ok(String::new()),
    };
    let mut bytes = Vec::new();
    let regular = file.metadata().is_ok_and(|meta| meta.is_file());
    if regular {
        file.take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|error| BuildError::io(format_args!("reading /{path} of the image"), &error))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nnode:x:1000:1001::/:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "staff:x:50:\n").unwrap();
        let root = File::open(dir.path()).unwrap();
        let find = |text: &str| lookup(root.as_fd(), text).map_err(|error| error.to_string());
        assert_eq!(find("5"), Ok((5, 5)));
        assert_eq!(find("5:6"), Ok((5, 6)));
        assert_eq!(find("node"), Ok((1000, 1001)));
        assert_eq!(find("node:staff"), Ok((1000, 50)));
        assert_eq!(find("7:staff"), Ok((7, 50)));
        assert!(find("nobody").unwrap_err().contains("unable to find user nobody"));
        assert!(
            find("0:wheel")
                .unwrap_err()
                .contains("unable to find group wheel")
        );
    }
}
