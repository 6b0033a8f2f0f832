//! What applying a layer makes of honest archives.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::bytes::{Header, Tar};
use crate::picture::picture;
use crate::{able, apply, place};

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn xattr(path: &Path, key: &str) -> Option<Vec<u8>> {
    let dir = fs::File::open(path.parent().unwrap()).unwrap();
    let dir = std::os::fd::AsFd::as_fd(&dir);
    sys::beneath::get_xattr(dir, path.file_name().unwrap(), key).unwrap()
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper", "lower"]);
    let [upper, lower] = &paths[..] else { panic!() };
    fs::create_dir_all(lower.join("dir/sub")).unwrap();
    fs::write(lower.join("gone"), "x").unwrap();
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .directory("dir/", 0o700)
        .file("dir/.wh..wh..opq", b"")
        .file("dir/kept", b"kept")
        .file(".wh..wh.plnk", b"")
        .finish();
    apply(&tar, upper, std::slice::from_ref(lower)).unwrap();
    assert!(is_whiteout(&upper.join("gone")));
    assert!(is_opaque(&upper.join("dir")));
    assert_eq!(fs::read(upper.join("dir/kept")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(upper).unwrap().count(), 2);
}

#[test]
fn the_lowest_layer_has_nothing_to_delete() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .file("dir/.wh..wh..opq", b"")
        .file("dir/.wh.x", b"")
        .finish();
    apply(&tar, &paths[0], &[]).unwrap();
    assert!(!paths[0].join("gone").exists());
    assert!(!is_opaque(&paths[0].join("dir")));
}

#[test]
fn what_a_layer_deletes_and_makes_again_starts_anew() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper", "lower"]);
    let [upper, lower] = &paths[..] else { panic!() };
    for name in ["before", "after", "implied", "kept"] {
        fs::create_dir(lower.join(name)).unwrap();
        fs::write(lower.join(name).join("old"), "x").unwrap();
    }
    let tar = Tar::new()
        .file(".wh.before", b"")
        .directory("before", 0o755)
        .directory("after", 0o755)
        .file("after/new", b"")
        .file(".wh.after", b"")
        .file(".wh.implied", b"")
        .file("implied/new", b"")
        .file(".wh.kept", b"")
        .file("kept", b"a file now")
        .finish();
    apply(&tar, upper, std::slice::from_ref(lower)).unwrap();
    for name in ["before", "after", "implied"] {
        assert!(is_opaque(&upper.join(name)), "{name}");
    }
    assert!(upper.join("after/new").exists());
    assert!(upper.join("implied/new").exists());
    assert_eq!(fs::read(upper.join("kept")).unwrap(), b"a file now");
}

#[test]
fn parents_the_archive_leaves_out_are_as_below() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper", "top", "bottom"]);
    let [upper, top, bottom] = &paths[..] else {
        panic!()
    };
    fs::create_dir_all(bottom.join("a/b")).unwrap();
    fs::create_dir_all(top.join("a")).unwrap();
    fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o1750)).unwrap();
    std::os::unix::fs::chown(top.join("a"), Some(11), Some(12)).unwrap();
    fs::set_permissions(bottom.join("a/b"), fs::Permissions::from_mode(0o711)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000, 5);
    fs::File::open(bottom.join("a/b"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let tar = Tar::new().file("a/b/c/file", b"x").finish();
    apply(&tar, upper, &[top.clone(), bottom.clone()]).unwrap();
    let picture = picture(upper);
    assert_eq!(picture[Path::new("a")].mode, 0o1750);
    assert_eq!(picture[Path::new("a")].owner, (11, 12));
    assert_eq!(picture[Path::new("a/b")].mode, 0o711);
    assert_eq!(picture[Path::new("a/b")].mtime, (1_000, 5));
    assert_eq!(picture[Path::new("a/b/c")].mode, 0o755);
}

#[test]
fn a_hard_link_to_a_lower_file_brings_it_up() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper", "hiding", "lower"]);
    let [upper, hiding, lower] = &paths[..] else {
        panic!()
    };
    fs::create_dir(lower.join("bin")).unwrap();
    fs::write(lower.join("bin/tool"), "tool").unwrap();
    fs::set_permissions(lower.join("bin/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(lower.join("bin/tool"), Some(7), Some(8)).unwrap();
    fs::set_permissions(lower.join("bin/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    let tar = Tar::new().hard_link("alias", "bin/tool").finish();
    let lowers = [lower.clone()];
    apply(&tar, upper, &lowers).unwrap();
    let made = picture(upper);
    let tool = &made[Path::new("bin/tool")];
    assert_eq!((tool.mode, tool.owner), (0o4711, (7, 8)));
    assert_eq!(tool.content.as_deref(), Some(&b"tool"[..]));
    assert_eq!(made[Path::new("alias")].twin.as_deref(), Some(Path::new("alias")));
    assert_eq!(tool.twin.as_deref(), Some(Path::new("alias")));

    // A layer in between that deleted it: then it is not there.
    fs::create_dir(hiding.join("bin")).unwrap();
    let whiteout = rustix::fs::FileType::CharacterDevice;
    let (cwd, path) = (rustix::fs::CWD, hiding.join("bin/tool"));
    rustix::fs::mknodat(cwd, &path, whiteout, rustix::fs::Mode::empty(), 0).unwrap();
    let other = upper.parent().unwrap().join("other");
    fs::create_dir(&other).unwrap();
    let error = apply(&tar, &other, &[hiding.clone(), lower.clone()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"alias\" is a hard link to \"bin/tool\", which does not exist"
    );
}

#[test]
fn links_within_the_layer_are_followed_to_where_they_lead() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper", "lower"]);
    let [upper, lower] = &paths[..] else { panic!() };
    fs::create_dir_all(lower.join("usr/lib")).unwrap();
    fs::set_permissions(lower.join("usr/lib"), fs::Permissions::from_mode(0o775)).unwrap();
    let tar = Tar::new()
        .symlink("lib", "usr/lib")
        .file("lib/a", b"a")
        .symlink("absolute", "/usr/share")
        .file("absolute/b", b"b")
        .finish();
    apply(&tar, upper, std::slice::from_ref(lower)).unwrap();
    assert_eq!(fs::read(upper.join("usr/lib/a")).unwrap(), b"a");
    assert_eq!(fs::read(upper.join("usr/share/b")).unwrap(), b"b");
    assert!(fs::symlink_metadata(upper.join("lib")).unwrap().is_symlink());
    let mode = fs::metadata(upper.join("usr/lib")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o775);
}

#[test]
fn the_last_entry_of_a_name_wins() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    let tar = Tar::new()
        .file("a", b"first")
        .file("a", b"second")
        .directory("b", 0o700)
        .file("b/in", b"")
        .file("b", b"a file")
        .symlink("c", "/etc")
        .directory("c", 0o750)
        .directory("d", 0o700)
        .file("d/kept", b"")
        .directory("d", 0o711)
        .finish();
    apply(&tar, &paths[0], &[]).unwrap();
    assert_eq!(fs::read(paths[0].join("a")).unwrap(), b"second");
    assert_eq!(fs::read(paths[0].join("b")).unwrap(), b"a file");
    assert_eq!(
        fs::symlink_metadata(paths[0].join("c")).unwrap().mode() & 0o777,
        0o750
    );
    assert!(fs::symlink_metadata(paths[0].join("c")).unwrap().is_dir());
    assert_eq!(fs::metadata(paths[0].join("d")).unwrap().mode() & 0o777, 0o711);
    assert!(paths[0].join("d/kept").exists());
}

/// Names are bytes: what is no text is a name as well, and what would change a terminal is not printed.
#[test]
fn names_that_are_no_text_are_kept() {
    use std::os::unix::ffi::OsStrExt as _;

    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    let strange: &[u8] = b"not \xff text\n\x1b[2J";
    let header = |typeflag, name, link, size| Header {
        typeflag,
        name,
        link,
        size,
        ..Header::default()
    };
    let tar = Tar::new()
        .header(&header(b'5', strange, b"", 0))
        .header(&header(b'0', b"not \xff text\n\x1b[2J/\xfe", b"", 3))
        .content(b"abc")
        .header(&header(b'1', b"hard", b"not \xff text\n\x1b[2J/\xfe", 0))
        .header(&header(b'2', b"soft", b"not \xff text\n\x1b[2J/\xfe", 0))
        .pax(&[("path", b"\xc3\x28/long")])
        .file("short", b"def")
        .finish();
    apply(&tar, &paths[0], &[]).unwrap();
    let at = |name: &[u8]| paths[0].join(std::ffi::OsStr::from_bytes(name));
    assert_eq!(
        fs::read(at(strange).join(std::ffi::OsStr::from_bytes(b"\xfe"))).unwrap(),
        b"abc"
    );
    assert_eq!(fs::read(at(b"hard")).unwrap(), b"abc");
    assert_eq!(fs::read(at(b"soft")).unwrap(), b"abc");
    assert_eq!(fs::read(at(b"\xc3\x28/long")).unwrap(), b"def");
    // And back.
    let mut back = Vec::new();
    image::layer::diff(&paths[0], &[], &mut back).unwrap();
    let (_other, again) = place(&["upper"]);
    apply(&back, &again[0], &[]).unwrap();
    let names = |top: &Path| -> Vec<_> { picture(top).into_keys().collect() };
    assert_eq!(names(&paths[0]), names(&again[0]));
    let tar = Tar::new().header(&header(b'Z', strange, b"", 0)).finish();
    let error = apply(&tar, &again[0], &[]).unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn attributes_of_both_writers_and_of_no_overlay() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    // Version 2 of file capabilities: cap_net_raw, effective.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.binary", b"\0\n=\xff"),
            ("LIBARCHIVE.xattr.user.other%3D", b"AAEC"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("uid", b"100000"),
        ])
        .file("f", b"x")
        .finish();
    apply(&tar, &paths[0], &[]).unwrap();
    let file = paths[0].join("f");
    assert_eq!(xattr(&file, "security.capability").as_deref(), Some(capability));
    assert_eq!(xattr(&file, "user.binary").as_deref(), Some(&b"\0\n=\xff"[..]));
    assert_eq!(xattr(&file, "user.other=").as_deref(), Some(&[0, 1, 2][..]));
    assert_eq!(xattr(&file, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&file, "trusted.overlay.opaque"), None);
    assert_eq!(fs::metadata(&file).unwrap().uid(), 100_000);
}

#[test]
fn the_root_has_metadata_too() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    let tar = Tar::new()
        .header(&Header {
            typeflag: b'5',
            name: b"./",
            mode: 0o1777,
            gid: 5,
            ..Header::default()
        })
        .file("./f", b"")
        .finish();
    apply(&tar, &paths[0], &[]).unwrap();
    let root = &picture(&paths[0])[Path::new("")];
    assert_eq!((root.mode, root.owner), (0o1777, (0, 5)));
    assert_eq!(root.mtime, (1_700_000_000, 0));
}

#[test]
fn the_stream_is_read_to_its_end() {
    if !able() {
        return;
    }
    let (_dir, paths) = place(&["upper"]);
    let mut tar = Tar::new().file("f", b"x").finish();
    tar.extend([0; 10_000]);
    let mut reader = &*tar;
    image::layer::apply(&mut reader, &paths[0], &[]).unwrap();
    assert!(reader.is_empty());
}
