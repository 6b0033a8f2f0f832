//! Subordinate ids: the ranges of /etc/subuid and /etc/subgid, and the user whose ranges all containers are in.
//!
//! A line is `name-or-uid:first:count`; a user may have several. What is refused here would let a container be
//! somebody on the host: ranges with root in them, or with ids that somebody else may use as well.

use std::path::Path;

use spec::runtime::IdMapping;

use super::{IdMaps, USUAL, file};

/// Consecutive ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Range {
    fn overlaps(self, other: Range) -> bool {
        u64::from(self.first) < u64::from(other.first) + u64::from(other.count)
            && u64::from(other.first) < u64::from(self.first) + u64::from(self.count)
    }
}

/// Whose ranges are looked for: a user by name and number, and other names that count for groups.
#[derive(Debug, Clone)]
struct Whose {
    user: String,
    names: Vec<String>,
}

/// Reads what `--userns-remap` says: `default`, or a user with or without a group, each a name or a number.
pub fn remap(text: &str, directory: &Path) -> Result<IdMaps, String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let (users, groups) = whose(text, &passwd, &group)?;
    let uids = ranges_of(&users, "uid", directory)?;
    let gids = ranges_of(&groups, "gid", directory)?;
    Ok(IdMaps {
        uids: mapped(&users, "uid", directory, &uids)?,
        gids: mapped(&groups, "gid", directory, &gids)?,
    })
}

fn whose(text: &str, passwd: &str, group: &str) -> Result<(Whose, Whose), String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) if !group.is_empty() => (user, Some(group)),
        Some((user, _)) => (user, None),
        None => (text, None),
    };
    if user.is_empty() {
        return Err("it needs a user: default, USER, USER:GROUP or UID:GID".to_owned());
    }
    let user = if text == "default" { "dockremap" } else { user };
    let found = find(passwd, user);
    // Nobody has to log in as the usual user: its ranges are enough.
    if found.is_none() && text != "default" {
        return Err(format!("no such user: {user}"));
    }
    let (name, number) = found.unwrap_or_else(|| (user.to_owned(), String::new()));
    let users = Whose {
        user: name.clone(),
        names: vec![name.clone(), number.clone()],
    };
    let mut names = Vec::new();
    if let Some(wanted) = wanted_group {
        let (group, gid) = find(group, wanted).ok_or_else(|| format!("no such group: {wanted}"))?;
        names.extend([group, gid]);
    }
    names.extend([name.clone(), number]);
    Ok((users, Whose { user: name, names }))
}

/// Name and number of a line of passwd(5) or group(5) with that name or number.
fn find(database: &str, wanted: &str) -> Option<(String, String)> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (name == wanted || number == wanted).then(|| (name.to_owned(), number.to_owned()))
    })
}

/// The ranges of a user by name, checked; for the pool.
pub(super) fn ranges_for(user: &str, kind: &str, directory: &Path) -> Result<Vec<Range>, String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (name, number) = find(&passwd, user).unwrap_or_else(|| (user.to_owned(), String::new()));
    let whose = Whose {
        user: name.clone(),
        names: vec![name, number],
    };
    ranges_of(&whose, kind, directory)
}

fn read(directory: &Path, kind: &str) -> Result<String, String> {
    let path = file(directory, kind);
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot read {}: {error}", path.display()))
        }
        result => Ok(result.unwrap_or_default()),
    }
}

fn ranges_of(whose: &Whose, kind: &str, directory: &Path) -> Result<Vec<Range>, String> {
    let path = file(directory, kind);
    let text = read(directory, kind)?;
    let mut own: Vec<Range> = Vec::new();
    let mut others: Vec<(&str, Range)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, first, count] = fields.as_slice() else {
            continue;
        };
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else {
            if whose.names.iter().any(|known| known == name) {
                return Err(format!(
                    "{}: {line:?} is no range: expected NAME:FIRST:COUNT",
                    path.display()
                ));
            }
            continue;
        };
        let range = Range { first, count };
        match name.is_empty() || !whose.names.iter().any(|known| known == name) {
            true => others.push((name, range)),
            false if count > 0 => own.push(range),
            false => {}
        }
    }
    if own.is_empty() {
        return Err(format!(
            "{user} has no subordinate ids: add the line {user}:{first}:{USUAL} to {path}",
            user = whose.user,
            first = free(&others),
            path = path.display()
        ));
    }
    for (index, range) in own.iter().enumerate() {
        let shown = format!("{}:{}:{}", whose.user, range.first, range.count);
        if range.first == 0 {
            return Err(format!("{}: {shown} begins with root", path.display()));
        }
        if range.first.checked_add(range.count).is_none() {
            return Err(format!("{}: {shown} goes beyond the largest id", path.display()));
        }
        let before = own.iter().take(index).map(|other| (whose.user.as_str(), *other));
        let clash = before
            .chain(others.iter().copied())
            .find(|(_, other)| range.overlaps(*other));
        if let Some((name, other)) = clash {
            return Err(format!(
                "{}: {shown} overlaps with {name}:{}:{}",
                path.display(),
                other.first,
                other.count
            ));
        }
    }
    Ok(own)
}

/// Where a range can begin that nobody has.
fn free(taken: &[(&str, Range)]) -> u64 {
    let end = taken
        .iter()
        .map(|(_, range)| u64::from(range.first) + u64::from(range.count));
    end.max().unwrap_or_default().max(100_000)
}

/// The ranges one after another, from 0 on.
fn mapped(whose: &Whose, kind: &str, directory: &Path, ranges: &[Range]) -> Result<Vec<IdMapping>, String> {
    let mut next = 0u32;
    let mut map = Vec::new();
    for range in ranges {
        map.push(IdMapping {
            container_id: next,
            host_id: range.first,
            size: range.count,
        });
        next = next.saturating_add(range.count);
    }
    if next < USUAL {
        return Err(format!(
            "{}: {} has {next} subordinate ids, and {USUAL} are needed: give it a larger range",
            file(directory, kind).display(),
            whose.user
        ));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:\n";

    fn attempt(text: &str, subuid: &str, subgid: &str) -> Result<IdMaps, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("subuid"), subuid).unwrap();
        std::fs::write(dir.path().join("subgid"), subgid).unwrap();
        let (users, groups) = whose(text, PASSWD, GROUP)?;
        let uids = ranges_of(&users, "uid", dir.path())?;
        let gids = ranges_of(&groups, "gid", dir.path())?;
        Ok(IdMaps {
            uids: mapped(&users, "uid", dir.path(), &uids)?,
            gids: mapped(&groups, "gid", dir.path(), &gids)?,
        })
    }

    fn starts(map: &[IdMapping]) -> Vec<(u32, u32, u32)> {
        map.iter()
            .map(|range| (range.container_id, range.host_id, range.size))
            .collect()
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        let own = "ann:100000:65536\n";
        for text in ["ann", "1000", "ann:", "ann:staff", "1000:50"] {
            let maps = attempt(text, own, own).unwrap();
            assert_eq!(starts(&maps.uids), [(0, 100_000, 65_536)], "{text}");
        }
        let maps = attempt("ann:staff", own, "staff:200000:65536\n").unwrap();
        assert_eq!(starts(&maps.gids), [(0, 200_000, 65_536)]);
        let numbered = attempt("ann", "1000:300000:65536\n", own).unwrap();
        assert_eq!(starts(&numbered.uids), [(0, 300_000, 65_536)]);
        let usual = "dockremap:100000:65536\n";
        assert!(attempt("default", usual, usual).is_ok());
    }

    #[test]
    fn several_ranges_follow_one_another() {
        let two = "ann:100000:60000\nbob:300000:65536\nann:400000:10000\n";
        let maps = attempt("ann", two, two).unwrap();
        assert_eq!(
            starts(&maps.uids),
            [(0, 100_000, 60_000), (60_000, 400_000, 10_000)]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = "ann:100000:65536\n";
        let error = |text: &str, subuid: &str| attempt(text, subuid, good).unwrap_err();
        assert_eq!(error("eve", good), "no such user: eve");
        assert_eq!(error("ann:wheel", good), "no such group: wheel");
        assert!(error("", good).contains("needs a user"));
        assert!(error(":staff", good).contains("needs a user"));
        let none = error("ann", "bob:100000:65536\n");
        assert!(
            none.contains("ann has no subordinate ids") && none.contains("ann:165536:65536"),
            "{none}"
        );
        assert!(error("default", "").contains("dockremap:100000:65536"));
        let small = error("ann", "ann:100000:1000\n");
        assert!(
            small.contains("1000 subordinate ids") && small.contains("65536"),
            "{small}"
        );
        let shared = error("ann", "bob:165000:65536\nann:100000:65536\n");
        assert!(shared.contains("overlaps with bob:165000:65536"), "{shared}");
        let twice = error("ann", "ann:100000:65536\nann:100001:65536\n");
        assert!(twice.contains("overlaps with ann"), "{twice}");
        assert!(error("ann", "ann:0:65536\n").contains("begins with root"));
        assert!(error("ann", "ann:4294900000:100000\n").contains("largest id"));
        assert!(error("ann", "ann:x:65536\n").contains("no range"));
        assert!(attempt("ann", good, "").unwrap_err().contains("subgid"));
    }
}
