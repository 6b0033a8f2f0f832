use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tree", "staging", "outside"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("outside/file"), "outside").unwrap();
        Place { dir }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn begin(&self) -> Update {
        self.begin_with(Trust::Before(i64::MAX))
    }

    fn begin_with(&self, trust: Trust) -> Update {
        Update::begin(&self.tree(), &self.dir.path().join("staging"), trust).unwrap()
    }

    /// Sends entries with the data of each file; which files were asked for.
    fn send(&self, entries: &[(Entry, &[u8])]) -> Result<Vec<String>, TreeError> {
        self.send_with(Trust::Before(i64::MAX), entries)
    }

    fn send_with(&self, trust: Trust, entries: &[(Entry, &[u8])]) -> Result<Vec<String>, TreeError> {
        let mut update = self.begin_with(trust);
        let mut asked = Vec::new();
        for (entry, _) in entries {
            asked.extend(update.entry(entry.clone())?);
        }
        let mut at = 0;
        while let Some(&id) = asked.get(at) {
            update.data(id, entries[id as usize].1)?;
            asked.extend(update.data(id, b"")?);
            at += 1;
        }
        let asked = asked
            .iter()
            .map(|id| entries[*id as usize].0.path.clone())
            .collect();
        update.end();
        assert!(update.is_complete());
        update.finish()?;
        Ok(asked)
    }

    /// How many files are under way aside.
    fn staged(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("staging"))
            .unwrap()
            .count()
    }

    fn untouched(&self) {
        let outside = self.dir.path().join("outside");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "outside");
    }
}

fn owner() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

fn entry(path: &str, st_mode: u32, size: usize, time: i64) -> Entry {
    let (uid, gid) = owner();
    Entry {
        path: path.to_owned(),
        mode: mode::of_stat(st_mode),
        uid,
        gid,
        size: size as i64,
        mod_time: time,
        ..Entry::default()
    }
}

fn file(path: &str, data: &'static str, time: i64) -> (Entry, &'static [u8]) {
    (entry(path, 0o100_644, data.len(), time), data.as_bytes())
}

/// A file that is larger than what is asked for as a sample.
fn large(path: &str, letter: u8, time: i64) -> (Entry, &'static [u8]) {
    let data: &'static [u8] = vec![letter; 70_000].leak();
    (entry(path, 0o100_644, data.len(), time), data)
}

fn directory(path: &str) -> (Entry, &'static [u8]) {
    (entry(path, 0o040_755, 0, 7_000_000_000), b"")
}

fn link(path: &str, goal: &str) -> (Entry, &'static [u8]) {
    let mut entry = entry(path, 0o120_777, 0, 5);
    entry.linkname = goal.to_owned();
    (entry, b"")
}

#[test]
fn only_what_differs_is_asked_for() {
    let place = Place::new();
    let first = [
        directory("d"),
        large("d/a", b'1', 1),
        large("e", b'2', 2),
        link("l", "d/a"),
    ];
    assert_eq!(place.send(&first).unwrap(), ["d/a", "e"]);
    assert!(place.send(&first).unwrap().is_empty());
    let second = [directory("d"), file("d/a", "new", 3), link("l", "e")];
    assert_eq!(place.send(&second).unwrap(), ["d/a"]);
    assert_eq!(std::fs::read_to_string(place.tree().join("d/a")).unwrap(), "new");
    assert_eq!(
        std::fs::read_link(place.tree().join("l")).unwrap(),
        PathBuf::from("e")
    );
    assert!(!place.tree().join("e").exists());
    let modified = std::fs::metadata(place.tree().join("d"))
        .unwrap()
        .modified()
        .unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 7);
}

#[test]
fn a_time_that_says_nothing_is_not_trusted() {
    let place = Place::new();
    let second = 1_000_000_000;
    let files = [
        large("a", b'a', second + 1),
        large("b", b'b', 2 * second),
        large("c", b'c', 3 * second + 1),
    ];
    place.send(&files).unwrap();
    // `b` has a whole second, and `c` is about as old as the last transfer.
    let last = Trust::Before(3 * second + 2);
    assert_eq!(place.send_with(last, &files).unwrap(), ["b", "c"]);
    assert_eq!(place.send_with(Trust::Never, &files).unwrap(), ["a", "b", "c"]);
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(place.tree().join(name)).unwrap().ino()
    };
    // What came and was the same is left as it is, for those who know its content by its place.
    let before = inode("b");
    place.send_with(Trust::Never, &files).unwrap();
    assert_eq!(inode("b"), before);
}

#[test]
fn another_directory_of_the_same_name_is_found_out() {
    let place = Place::new();
    place
        .send(&[large("a", b'a', 1), large("b", b'b', 2), file("c", "one", 3)])
        .unwrap();
    // Everything looks the same, and everything is another.
    let other = [large("a", b'x', 1), large("b", b'y', 2), file("c", "two", 3)];
    assert_eq!(place.send(&other).unwrap(), ["c", "a", "b"]);
    for (name, first) in [("a", b'x'), ("b", b'y'), ("c", b't')] {
        assert_eq!(
            std::fs::read(place.tree().join(name)).unwrap()[0],
            first,
            "{name}"
        );
    }
    let again = place.send(&other).unwrap();
    assert_eq!(
        again,
        ["c"],
        "only the sample is asked for where all of it is the same"
    );
}

#[test]
fn kinds_change_into_each_other() {
    let place = Place::new();
    place
        .send(&[
            directory("x"),
            file("x/a", "1", 1),
            file("y", "2", 2),
            link("z", "y"),
        ])
        .unwrap();
    place
        .send(&[
            file("x", "3", 3),
            directory("y"),
            file("y/b", "4", 4),
            directory("z"),
        ])
        .unwrap();
    assert_eq!(std::fs::read_to_string(place.tree().join("x")).unwrap(), "3");
    assert_eq!(std::fs::read_to_string(place.tree().join("y/b")).unwrap(), "4");
    assert!(
        std::fs::symlink_metadata(place.tree().join("z"))
            .unwrap()
            .is_dir()
    );
    place.send(&[link("x", "/"), file("y", "5", 5)]).unwrap();
    assert_eq!(std::fs::read_to_string(place.tree().join("y")).unwrap(), "5");
}

#[test]
fn hard_links_are_made_within_the_transfer() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let mut same = entry("b", 0o100_644, 3, 1);
    same.linkname = "a".to_owned();
    place.send(&[file("a", "one", 1), (same.clone(), b"")]).unwrap();
    let inode = |name: &str| std::fs::metadata(place.tree().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    let mut outside = same;
    for goal in ["../outside/file", "/etc/passwd", "c", "b"] {
        outside.linkname = goal.to_owned();
        assert!(
            place
                .send(&[file("a", "one", 1), (outside.clone(), b"")])
                .is_err(),
            "{goal}"
        );
    }
}

#[test]
fn nothing_is_taken_through_a_link_or_outside() {
    let place = Place::new();
    let outside = place.dir.path().join("outside").display().to_string();
    for path in [
        "",
        ".",
        "..",
        "../outside/x",
        "/x",
        "a//b",
        "a/../b",
        "a/",
        "./a",
        "a\0b",
    ] {
        let sent = place.send(&[directory("a"), file(path, "evil", 1)]);
        assert!(matches!(sent, Err(TreeError::Path(_))), "{path:?}");
    }
    let sent = place.send(&[link("l", &outside), file("l/x", "evil", 1)]);
    assert!(matches!(sent, Err(TreeError::Order(_))));
    // The link of an earlier transfer is no directory of this one.
    place.send(&[link("l", &outside)]).unwrap();
    place
        .send(&[directory("l"), file("l/file", "inside", 1)])
        .unwrap();
    assert!(matches!(
        place.send(&[file("l/file", "inside", 1)]),
        Err(TreeError::Order(_))
    ));
    assert!(matches!(
        place.send(&[file("a", "1", 1), file("a", "2", 2)]),
        Err(TreeError::Twice(_))
    ));
    place.untouched();
}

#[test]
fn a_transfer_that_breaks_off_leaves_no_half_file() {
    let place = Place::new();
    place.send(&[file("a", "old", 1)]).unwrap();
    let mut update = place.begin();
    let id = update.entry(entry("a", 0o100_644, 6, 2)).unwrap().unwrap();
    update.data(id, b"new").unwrap();
    assert!(matches!(update.data(id + 1, b"x"), Err(TreeError::Unasked(_))));
    drop(update);
    assert_eq!(std::fs::read_to_string(place.tree().join("a")).unwrap(), "old");
}

#[test]
fn what_breaks_off_under_its_own_name_is_never_taken_for_the_file() {
    let place = Place::new();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begun = i64::try_from(since.unwrap().as_nanos()).unwrap();
    let half = large("a", b'x', 1);
    let mut update = place.begin();
    let id = update.entry(entry("a", 0o100_644, 140_000, 1)).unwrap().unwrap();
    update.data(id, half.1).unwrap();
    // Nothing lay there, so it is not written twice.
    assert_eq!(place.staged(), 0);
    drop(update);
    // Even who says of the file what the half of it looks like is asked for it.
    let path = place.tree().join("a");
    let there = std::fs::metadata(&path).unwrap();
    let time = there.modified().unwrap().duration_since(std::time::UNIX_EPOCH);
    let alike = entry(
        "a",
        0o100_644,
        there.len() as usize,
        i64::try_from(time.unwrap().as_nanos()).unwrap(),
    );
    let whole: &'static [u8] = vec![b'y'; half.1.len()].leak();
    let sent = [(alike, whole)];
    assert_eq!(place.send_with(Trust::Before(begun), &sent).unwrap(), ["a"]);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn files_have_the_permissions_that_were_told_wherever_they_are_written() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let modes = [0o100_000, 0o100_666, 0o102_755, 0o104_711, 0o101_777];
    let told = |time| {
        let files = modes
            .iter()
            .map(|mode| (entry(&format!("d/{mode:o}"), *mode, 1, time), &b"x"[..]));
        let mut all = vec![(entry("d", 0o042_755, 0, 7), &b""[..])];
        all.extend(files);
        all
    };
    // Where nothing lies, and in the place of others.
    for time in [1, 2] {
        place.send(&told(time)).unwrap();
        for mode in modes {
            let there = std::fs::metadata(place.tree().join(format!("d/{mode:o}"))).unwrap();
            assert_eq!(there.permissions().mode(), mode, "{time}");
        }
    }
}

#[test]
fn a_size_that_lies_is_found_out_the_next_time() {
    let place = Place::new();
    let mut lying = entry("a", 0o100_644, 1_000_000, 1);
    assert_eq!(place.send(&[(lying.clone(), b"short")]).unwrap(), ["a"]);
    assert_eq!(place.send(&[(lying.clone(), b"short")]).unwrap(), ["a"]);
    lying.size = -1;
    assert_eq!(place.send(&[(lying, b"short")]).unwrap(), ["a"]);
    assert_eq!(std::fs::read_to_string(place.tree().join("a")).unwrap(), "short");
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("a/c".to_owned()),
        Just("a/c/d".to_owned()),
        Just("..".to_owned()),
        Just("../outside/file".to_owned()),
        Just("a/../../outside/file".to_owned()),
        "[a-c./]{0,6}",
    ];
    let goal = prop_oneof![
        Just(String::new()),
        Just("a".to_owned()),
        Just("../outside".to_owned()),
        Just("../outside/file".to_owned()),
        Just("/".to_owned()),
    ];
    let kinds = [0o100_644, 0o040_755, 0o120_777, 0o010_600, 0o140_600];
    (
        name,
        goal,
        0..kinds.len(),
        any::<i8>(),
        any::<u8>(),
        proptest::collection::vec(any::<u8>(), 0..8),
    )
        .prop_map(move |(path, goal, kind, size, time, data)| {
            let mut entry = entry(&path, kinds[kind], 0, i64::from(time));
            entry.linkname = goal;
            entry.size = i64::from(size);
            (entry, data)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent, in whatever order, nothing outside changes and nothing panics; what was taken is taken again.
    #[test]
    fn hostile_transfers_stay_inside(transfers in proptest::collection::vec(
        proptest::collection::vec(any_entry(), 0..12), 1..4,
    )) {
        let place = Place::new();
        for transfer in transfers {
            let mut update = place.begin();
            for (entry, data) in transfer {
                if let Ok(Some(id)) = update.entry(entry) {
                    let _ = update.data(id, &data);
                    let _ = update.data(id, b"");
                }
            }
            update.end();
            let _ = update.finish();
            let _ = std::fs::remove_dir_all(place.dir.path().join("staging"));
            std::fs::create_dir(place.dir.path().join("staging")).unwrap();
            place.untouched();
        }
    }
}

/// What a build gives is laid over what a directory holds.
#[test]
fn a_merge_keeps_what_it_does_not_name() {
    let place = Place::new();
    let tree = place.tree();
    std::fs::create_dir_all(tree.join("kept/deep")).unwrap();
    std::fs::write(tree.join("kept/deep/file"), "kept").unwrap();
    std::fs::write(tree.join("same"), "old").unwrap();
    std::fs::create_dir(tree.join("was-directory")).unwrap();
    std::os::unix::fs::symlink(place.dir.path().join("outside"), tree.join("link")).unwrap();
    let mut update = Update::merge(&tree, &place.dir.path().join("staging")).unwrap();
    let of = |path: &str, mode: u32| Entry {
        path: path.to_owned(),
        mode,
        uid: 4711,
        ..Entry::default()
    };
    let directory = mode::of_stat(0o040_755);
    let entries = [
        of("kept", directory),
        of("kept/new", 0o644),
        of("link", directory),
        of("link/inside", 0o644),
        of("same", 0o600),
        of("was-directory", 0o644),
    ];
    for (number, entry) in (0..).zip(entries) {
        if let Some(id) = update.entry(entry).unwrap() {
            assert_eq!(id, number);
            update.data(id, b"new").unwrap();
            update.data(id, b"").unwrap();
        }
    }
    update.end();
    update.finish().unwrap();
    let read = |path: &str| std::fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!(read("kept/deep/file"), "kept");
    for path in ["kept/new", "link/inside", "same", "was-directory"] {
        assert_eq!(read(path), "new", "{path}");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(tree.join(path)).unwrap());
        assert_eq!(owner, self::owner().0);
    }
    place.untouched();
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let update = place.begin();
    let outside = place.dir.path().join("outside");
    let mode = || std::fs::metadata(&outside).unwrap().permissions().mode() & 0o7777;
    let before = mode();
    // As if somebody had put it there between the look at the name and the making of the directory.
    std::os::unix::fs::symlink(&outside, place.tree().join("d")).unwrap();
    let entry = entry("d", 0o040_711, 0, 5);
    assert!(update.make_directory(&entry).is_err());
    assert_eq!(mode(), before);
    std::fs::remove_file(place.tree().join("d")).unwrap();
    update.make_directory(&entry).unwrap();
    let made = std::fs::metadata(place.tree().join("d")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o711);
}
