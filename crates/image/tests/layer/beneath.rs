//! Layers applied while those below them are still on their way.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::layer::{Beneath, LayerError, apply_above};

use crate::bytes::Tar;
use crate::picture::picture;
use crate::{able, apply, place};

/// What the layer below holds.
fn fill(lower: &Path) {
    fs::create_dir_all(lower.join("usr/lib/deep")).unwrap();
    fs::create_dir_all(lower.join("var/log")).unwrap();
    fs::create_dir_all(lower.join("gone/sub")).unwrap();
    fs::write(lower.join("usr/lib/tool"), "tool").unwrap();
    for (path, mode, owner) in [
        ("usr", 0o751, 11),
        ("usr/lib", 0o1770, 12),
        ("usr/lib/deep", 0o700, 13),
        ("var", 0o711, 14),
        ("var/log", 0o2775, 15),
        ("gone", 0o733, 16),
        ("usr/lib/tool", 0o4711, 17),
    ] {
        std::os::unix::fs::chown(lower.join(path), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(lower.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    // From the bottom upwards, since each changes what is above it.
    for path in [
        "usr/lib/tool",
        "usr/lib/deep",
        "usr/lib",
        "usr",
        "var/log",
        "var",
        "gone",
        "",
    ] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000 + path.len() as u64, 7);
        fs::File::open(lower.join(path))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    fs::set_permissions(lower, fs::Permissions::from_mode(0o750)).unwrap();
}

fn tar() -> Vec<u8> {
    Tar::new()
        // Taken for granted, and never said.
        .file("usr/lib/deep/file", b"x")
        // Taken for granted, then said after all, also through a link.
        .file("var/log/one", b"1")
        .directory("var", 0o700)
        .symlink("alias", "var")
        .directory("alias/log/", 0o711)
        // Deleted and made anew.
        .file(".wh.gone", b"")
        .file("gone/new", b"n")
        // Taken for granted, then something else.
        .file("usr/share/doc", b"d")
        .file("usr/share", b"a file")
        .finish()
}

/// The same as above layers that are complete, but for the time of the root, which such layers are created with.
#[test]
fn the_same_comes_of_it_as_above_complete_layers() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["at-once", "waiting", "lower", "later"]);
    let [at_once, waiting, lower, later] = &paths[..] else {
        panic!()
    };
    fill(lower);
    apply(&tar(), at_once, std::slice::from_ref(lower)).unwrap();
    let asked = AtomicUsize::new(0);
    let wait = || {
        // Not there before it is asked for.
        fill(later);
        asked.fetch_add(1, Ordering::Relaxed);
        Ok(vec![later.clone()])
    };
    apply_above(&tar()[..], waiting, Beneath::Coming(&wait)).unwrap();
    let (mut expected, mut made) = (picture(at_once), picture(waiting));
    let root = made.remove(Path::new("")).unwrap();
    expected.remove(Path::new(""));
    // Nothing says when this one was made.
    for picture in [&mut made, &mut expected] {
        picture.get_mut(Path::new("gone")).unwrap().mtime = (0, 0);
    }
    assert_eq!(made, expected);
    assert_eq!(asked.into_inner(), 1);
    assert_eq!((root.mode, root.mtime), (0o750, (1_000, 7)), "the lower root's");
    assert_eq!(made[Path::new("var")].mode, 0o700, "the archive's own");
    assert_eq!(
        made[Path::new("var/log")].mode,
        0o711,
        "the archive's own, through a link"
    );
    assert_eq!(made[Path::new("usr/lib")].mode, 0o1770);
    assert_eq!(made[Path::new("usr/lib")].owner, (12, 12));
    assert_eq!(made[Path::new("usr")].mtime, (1_003, 7));
    assert_eq!(
        made[Path::new("gone")].owner,
        (0, 0),
        "nothing of a deleted one comes back"
    );
}

/// Says whether all of it was read.
struct Watched<'a> {
    bytes: &'a [u8],
    ended: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.ended.store(read == 0, Ordering::Relaxed);
        Ok(read)
    }
}

#[test]
fn the_layers_below_are_waited_for_at_the_end_or_for_a_link_to_their_files() {
    if !able() {
        return;
    }
    let linked = Tar::new()
        .hard_link("alias", "usr/lib/tool")
        .file("after", &[7; 1 << 20])
        .finish();
    for (tar, at_the_end) in [(tar(), true), (linked, false)] {
        let (_dir, paths) = place(&["upper", "lower"]);
        let [upper, lower] = &paths[..] else { panic!() };
        fill(lower);
        let ended = AtomicBool::new(false);
        let wait = || {
            assert_eq!(ended.load(Ordering::Relaxed), at_the_end);
            Ok(vec![lower.clone()])
        };
        let reader = Watched {
            bytes: &tar,
            ended: &ended,
        };
        apply_above(reader, upper, Beneath::Coming(&wait)).unwrap();
        if !at_the_end {
            let made = picture(upper);
            assert_eq!(made[Path::new("usr/lib/tool")].mode, 0o4711);
            assert_eq!(made[Path::new("alias")].content.as_deref(), Some(&b"tool"[..]));
            assert_eq!(made[Path::new("usr/lib")].owner, (12, 12));
        }
    }
}

#[test]
fn layers_that_never_come_are_the_reason_told() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    let wait = || Err::<Vec<PathBuf>, _>(io::Error::other("given up"));
    let failed = apply_above(&tar()[..], &paths[0], Beneath::Coming(&wait)).unwrap_err();
    assert!(matches!(failed, LayerError::Beneath(_)), "{failed}");
    assert_eq!(
        failed.to_string(),
        "a layer below could not be unpacked: given up"
    );
}
