//! Archives that want to write where they must not, or to take more than they may.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use image::layer::LayerError;

use crate::bytes::{Header, Tar};
use crate::picture::picture;
use crate::{able, apply, place};

/// A directory to unpack to, beside one that must stay as it is.
pub(crate) struct Scene {
    _dir: tempfile::TempDir,
    pub(crate) dest: PathBuf,
    pub(crate) outside: PathBuf,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let (dir, paths) = place(&["dest", "outside"]);
        fs::write(paths[1].join("file"), "untouched").unwrap();
        Scene {
            _dir: dir,
            dest: paths[0].clone(),
            outside: paths[1].clone(),
        }
    }

    fn outside(&self, name: &str) -> String {
        self.outside.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn check(&self) {
        let names: Vec<_> = picture(&self.outside).into_keys().collect();
        assert_eq!(names, [Path::new("").to_owned(), "file".into()]);
        assert_eq!(fs::read(self.outside.join("file")).unwrap(), b"untouched");
        let top = self.dest.parent().unwrap();
        assert_eq!(fs::read_dir(top).unwrap().count(), 2);
    }
}

#[test]
fn names_do_not_lead_out() {
    if !able() {
        return;
    }
    for name in [
        "../outside/x",
        "a/../../outside/x",
        "..",
        "../.wh.outside",
        "/../outside/x",
    ] {
        let scene = Scene::new();
        let tar = Tar::new().file(name, b"evil").finish();
        let error = apply(&tar, &scene.dest, &[]).unwrap_err();
        assert!(matches!(error, LayerError::Outside { .. }), "{name}: {error}");
        scene.check();
    }
    let scene = Scene::new();
    let absolute = scene.outside("x");
    let tar = Tar::new().file(&absolute, b"inside").finish();
    apply(&tar, &scene.dest, &[]).unwrap();
    assert!(scene.dest.join(absolute.trim_start_matches('/')).exists());
    scene.check();
}

#[test]
fn links_do_not_lead_out() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let outside = scene.outside("");
    for target in ["../outside", "../../../../../../../../..", &outside, "/", "."] {
        let scene = Scene::new();
        let tar = Tar::new()
            .symlink("way", target)
            .file("way/file", b"inside")
            .file("way/deep/er/file", b"inside")
            .directory("way/dir", 0o777)
            .symlink("way/link", "x")
            .hard_link("way/hard", "way/file")
            .header(&Header {
                typeflag: b'3',
                name: b"way/device",
                device: (1, 3),
                ..Header::default()
            })
            .file("way/.wh.file2", b"")
            .file("way/.wh..wh..opq", b"")
            .finish();
        // Whether it can be done depends on where the link leads inside; outside nothing may happen.
        let _ = apply(&tar, &scene.dest, std::slice::from_ref(&scene.outside));
        scene.check();
    }
}

#[test]
fn an_entry_replaces_a_link_instead_of_following_it() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let target = scene.outside("file");
    let tar = Tar::new()
        .symlink("f", &target)
        .file("f", b"new")
        .symlink("d", &scene.outside(""))
        .directory("d", 0o777)
        .file("d/file", b"new")
        .finish();
    apply(&tar, &scene.dest, &[]).unwrap();
    assert_eq!(fs::read(scene.dest.join("f")).unwrap(), b"new");
    assert_eq!(fs::read(scene.dest.join("d/file")).unwrap(), b"new");
    scene.check();
}

#[test]
fn hard_links_do_not_reach_out() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    for target in ["../outside/file", "way/file", &scene.outside("file")] {
        let scene = Scene::new();
        let tar = Tar::new()
            .symlink("way", "../outside")
            .hard_link("mine", target)
            .file("mine", b"evil")
            .finish();
        assert!(apply(&tar, &scene.dest, &[]).is_err(), "{target}");
        scene.check();
    }
    // A link to a link is a link, and not a way to what it names.
    let tar = Tar::new()
        .symlink("link", &scene.outside("file"))
        .hard_link("mine", "link")
        .finish();
    apply(&tar, &scene.dest, &[]).unwrap();
    assert!(
        fs::symlink_metadata(scene.dest.join("mine"))
            .unwrap()
            .is_symlink()
    );
    scene.check();
}

#[test]
fn a_link_in_a_lower_layer_is_not_followed_on_the_host() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let lower = scene.dest.join("lower");
    let upper = scene.dest.join("upper");
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&upper).unwrap();
    symlink(&scene.outside, lower.join("way")).unwrap();
    let tar = Tar::new()
        .file("way/x", b"")
        .hard_link("hard", "way/file")
        .finish();
    let error = apply(&tar, &upper, &[lower]).unwrap_err();
    assert!(matches!(error, LayerError::LinkTarget { .. }), "{error}");
    assert!(fs::symlink_metadata(upper.join("way")).unwrap().is_dir());
    scene.check();
}

/// Does something on a thread that may make no devices.
fn powerless<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use sys::caps::{self, Set};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (devices, _) = Set::from_names(&["CAP_MKNOD"]);
            let left = caps::permitted().unwrap().without(devices);
            caps::set(left, left, Set::NONE).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_device_that_may_not_be_made_is_told_with_what_to_do() {
    if !able() {
        return;
    }
    for (typeflag, said) in [(b'3', "character 1:3"), (b'4', "block 1:3")] {
        let scene = Scene::new();
        let tar = Tar::new()
            .file("dev/before", b"x")
            .header(&Header {
                typeflag,
                name: b"dev/node",
                device: (1, 3),
                ..Header::default()
            })
            .finish();
        let error = powerless(|| apply(&tar, &scene.dest, &[])).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("\"dev/node\"") && told.contains(said) && told.contains("CAP_MKNOD"),
            "{told}"
        );
        assert_eq!(error.class(), spec::ErrorClass::Forbidden);
        scene.check();
        // With the right to do so it is made.
        apply(&tar, &scene.dest, &[]).unwrap();
    }
    // A link to one of a lower layer brings that up.
    let scene = Scene::new();
    let (lower, upper) = (scene.dest.join("lower"), scene.dest.join("upper"));
    let device = Tar::new()
        .header(&Header {
            typeflag: b'3',
            name: b"node",
            device: (1, 3),
            ..Header::default()
        })
        .finish();
    for dir in [&lower, &upper] {
        fs::create_dir(dir).unwrap();
    }
    apply(&device, &lower, &[]).unwrap();
    let link = Tar::new().hard_link("other", "node").finish();
    let lowers = [lower];
    let told = powerless(|| apply(&link, &upper, &lowers))
        .unwrap_err()
        .to_string();
    assert!(told.contains("\"other\"") && told.contains("CAP_MKNOD"), "{told}");
    // Pipes are no devices, nor is what overlayfs has for something that was deleted.
    let allowed = Tar::new()
        .header(&Header {
            typeflag: b'6',
            name: b"pipe",
            ..Header::default()
        })
        .file(".wh.gone", b"")
        .finish();
    powerless(|| apply(&allowed, &upper, &lowers)).unwrap();
    scene.check();
}

#[test]
fn whiteouts_name_something() {
    if !able() {
        return;
    }
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        let scene = Scene::new();
        let lower = [scene.outside.clone()];
        let tar = Tar::new().file(name, b"").finish();
        let error = apply(&tar, &scene.dest, &lower).unwrap_err();
        assert!(matches!(error, LayerError::Name { .. }), "{name}: {error}");
        scene.check();
    }
}

#[test]
fn names_have_limits() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let long = "d/".repeat(3000);
    for name in ["n".repeat(256), long] {
        let tar = Tar::new()
            .pax(&[("path", name.as_bytes())])
            .file("short", b"")
            .finish();
        let error = apply(&tar, &scene.dest, &[]).unwrap_err();
        assert!(matches!(error, LayerError::Name { .. }), "{error}");
    }
    let tar = Tar::new().pax(&[("path", b"a\0b")]).file("short", b"").finish();
    assert!(apply(&tar, &scene.dest, &[]).is_err());
}

#[test]
fn an_archive_that_ends_early_names_its_entry() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let tar = Tar::new()
        .file("first", &[1; 600])
        .file("second", &[2; 600])
        .finish();
    for (length, expected) in [
        (100, "its beginning"),
        (512 + 100, "\"first\""),
        (512 + 1024 + 10, "\"first\""),
        (512 + 1024 + 512 + 590, "\"second\""),
    ] {
        let error = apply(&tar[..length], &scene.dest, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the archive ends early, in {expected}"),
            "{length}"
        );
    }
    // Without its end mark it is still complete, as GNU tar sees it too.
    apply(&tar[..tar.len() - 1024], &scene.dest, &[]).unwrap();
}

#[test]
fn sizes_are_bounded_before_memory_is_taken() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    for typeflag in [b'x', b'L', b'K'] {
        let tar = Tar::new()
            .header(&Header {
                typeflag,
                name: b"x",
                size: 0o77_777_777_777,
                ..Header::default()
            })
            .finish();
        let error = apply(&tar, &scene.dest, &[]).unwrap_err();
        assert!(error.to_string().contains("mebibyte"), "{error}");
    }
    for records in [
        &[("GNU.sparse.map", &b"0,10,5,10"[..]), ("GNU.sparse.size", b"100")][..],
        &[
            ("GNU.sparse.map", b"18446744073709551615,10"),
            ("GNU.sparse.size", b"100"),
        ],
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"100")],
        &[("size", b"99999999999999999999999")],
        &[("uid", b"4294967295")],
        &[("mtime", b"yesterday")],
    ] {
        let tar = Tar::new().pax(records).file("f", &[b'9'; 20]).finish();
        assert!(apply(&tar, &scene.dest, &[]).is_err(), "{records:?}");
    }
}

/// Each of them is of a length that is allowed, and there may be any number before an entry.
#[test]
fn extended_headers_of_one_entry_are_bounded_together() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let value = vec![b'v'; 600 << 10];
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.user.a", &value)])
        .pax(&[("SCHILY.xattr.user.b", &value)])
        .file("f", b"")
        .finish();
    let error = apply(&tar, &scene.dest, &[]).unwrap_err();
    assert!(error.to_string().contains("mebibyte"), "{error}");
    assert!(!scene.dest.join("f").exists());
    // Those of the next entry count for themselves.
    let tar = Tar::new()
        .pax(&[("comment", &value)])
        .file("f", b"")
        .pax(&[("comment", &value)])
        .file("g", b"")
        .finish();
    apply(&tar, &scene.dest, &[]).unwrap();
    scene.check();
}

/// A mebibyte of them: each is compared with no other.
#[test]
fn tens_of_thousands_of_attributes_are_told_apart() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let names: Vec<String> = (0..30_000).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let error = apply(
        &Tar::new().pax(&records).file("f", b"").finish(),
        &scene.dest,
        &[],
    )
    .unwrap_err();
    assert!(error.to_string().contains("\"f\""), "{error}");
    // The last of a name wins.
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"2")])
        .pax(&[("SCHILY.xattr.user.a", b"3"), ("LIBARCHIVE.xattr.user.b", b"NA")])
        .file("g", b"")
        .finish();
    apply(&tar, &scene.dest, &[]).unwrap();
    let mut value = [0; 8];
    for (name, expected) in [("user.a", b"3"), ("user.b", b"2")] {
        let length = rustix::fs::getxattr(scene.dest.join("g"), name, &mut value).unwrap();
        assert_eq!(&value[..length], expected, "{name}");
    }
    scene.check();
}

#[test]
fn checksums_and_types_are_checked() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let mut tar = Tar::new().file("f", b"x").finish();
    tar[3] ^= 1;
    let error = apply(&tar, &scene.dest, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive is broken at its beginning: the header's checksum is wrong"
    );
    let tar = Tar::new()
        .header(&Header {
            typeflag: b'Z',
            name: b"odd",
            ..Header::default()
        })
        .finish();
    let error = apply(&tar, &scene.dest, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive cannot be used because of \"odd\": it is of an unknown type"
    );
}

/// Names take many directories for granted, each of which has to be kept in mind until the end.
#[test]
fn what_is_kept_in_mind_of_directories_is_bounded() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let (lower, upper) = (scene.dest.join("lower"), scene.dest.join("upper"));
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&upper).unwrap();
    let mut tar = Tar::new();
    let rest = format!("{}/", "d".repeat(200)).repeat(19);
    for number in 0..3500 {
        let name = format!("{number}/{rest}f");
        tar.pax(&[("path", name.as_bytes())]).file("short", b"");
    }
    let error = apply(&tar.finish(), &upper, &[lower]).unwrap_err();
    assert!(
        error.to_string().contains("more directories than one may have"),
        "{error}"
    );
    assert_eq!(error.class(), spec::ErrorClass::Invalid);
    scene.check();
}
