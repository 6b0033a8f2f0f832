//! Copies from and to a root filesystem whose owner wants them to land elsewhere, or to bring something from there.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use image::archive::{ExtractOptions, extract, pack, stat};

use crate::bytes::Tar;
use crate::{able, place};

struct Scene {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Scene {
    /// A root in which links point at a directory of the host, by its absolute path and by climbing.
    fn new() -> Scene {
        let (dir, paths) = place(&["root", "outside"]);
        let scene = Scene {
            _dir: dir,
            root: paths[0].clone(),
            outside: paths[1].clone(),
        };
        fs::write(scene.outside.join("secret"), "of the host").unwrap();
        fs::create_dir(scene.root.join("dir")).unwrap();
        let climbing = format!("{}{}", "../".repeat(12), scene.outside.display());
        symlink(&scene.outside, scene.root.join("absolute")).unwrap();
        symlink(&climbing, scene.root.join("climbing")).unwrap();
        symlink("absolute", scene.root.join("twice")).unwrap();
        symlink(scene.outside.join("secret"), scene.root.join("file")).unwrap();
        scene
    }

    fn extract(&self, dest: &str, tar: &Tar) -> Result<(), image::archive::ArchiveError> {
        let root = fs::File::open(&self.root).unwrap();
        extract(
            tar.finish().as_slice(),
            root.as_fd(),
            dest,
            &ExtractOptions::default(),
        )
    }

    fn pack(&self, path: &str) -> Result<Vec<u8>, image::archive::ArchiveError> {
        let root = fs::File::open(&self.root).unwrap();
        let mut out = Vec::new();
        pack(root.as_fd(), path, None, &mut out).map(|()| out)
    }

    fn check(&self, what: &str) {
        let names: Vec<_> = fs::read_dir(&self.outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"], "{what}");
        let secret = self.outside.join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host", "{what}");
        assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1, "{what}");
    }
}

#[test]
fn no_link_of_the_root_leads_an_archive_outside() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let plain = || {
        let mut tar = Tar::new();
        tar.file("new", b"evil")
            .file("secret", b"evil")
            .directory("made", 0o777);
        tar
    };
    for dest in [
        "/absolute",
        "/climbing",
        "/twice",
        "/absolute/../absolute",
        "/../absolute",
        "/file",
    ] {
        // Refused, since inside of the root nothing is there.
        assert!(scene.extract(dest, &plain()).is_err(), "{dest}");
        scene.check(dest);
    }
    for name in ["absolute", "climbing", "twice"] {
        let mut tar = Tar::new();
        tar.file(&format!("{name}/new"), b"evil")
            .file(&format!("{name}/secret"), b"evil");
        // Whether it is refused or lands inside, it is not outside.
        let _ = scene.extract("/", &tar);
        scene.check(name);
        let mut tar = Tar::new();
        tar.hard_link("stolen", &format!("{name}/secret"))
            .file("stolen", b"evil");
        let _ = scene.extract("/dir", &tar);
        let _ = scene.extract("/", &tar);
        scene.check(name);
    }
    let mut tar = Tar::new();
    tar.file("file", b"mine");
    scene.extract("/", &tar).unwrap();
    scene.check("a file in place of a link");
    assert!(fs::symlink_metadata(scene.root.join("file")).unwrap().is_file());
}

#[test]
fn an_archive_cannot_make_its_own_way_out() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let outside = scene.outside.display().to_string();
    let climbing = format!("{}{outside}", "../".repeat(12));
    let mut attacks: Vec<(&str, Tar)> = Vec::new();
    let mut add = |what, make: &dyn Fn(&mut Tar)| {
        let mut tar = Tar::new();
        make(&mut tar);
        attacks.push((what, tar));
    };
    add("a link, then through it", &|tar| {
        tar.symlink("way", &outside).file("way/new", b"evil");
    });
    add("a link instead of a directory", &|tar| {
        tar.directory("way", 0o755)
            .symlink("way", &outside)
            .file("way/new", b"evil");
    });
    add("a link, then a directory of that name", &|tar| {
        tar.symlink("way", &outside)
            .directory("way", 0o777)
            .file("way/new", b"evil");
    });
    add("dots", &|tar| {
        tar.file(&format!("a/{climbing}/new"), b"evil");
    });
    add("a hard link to dots", &|tar| {
        tar.hard_link("way", &format!("{climbing}/secret"))
            .file("way", b"evil");
    });
    add("a hard link to a link", &|tar| {
        tar.symlink("way", &format!("{outside}/secret"))
            .hard_link("other", "way")
            .file("other", b"evil");
    });
    add("the times of a directory that became a link", &|tar| {
        tar.directory("way", 0o700).symlink("way", &outside);
    });
    let before = fs::metadata(&scene.outside).unwrap();
    for (what, tar) in attacks {
        for dest in ["/", "/dir"] {
            let _ = scene.extract(dest, &tar);
            scene.check(what);
        }
        let after = fs::metadata(&scene.outside).unwrap();
        assert_eq!(
            (before.mode(), before.mtime(), before.mtime_nsec()),
            (after.mode(), after.mtime(), after.mtime_nsec()),
            "{what}"
        );
    }
}

#[test]
fn nothing_from_outside_is_packed() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    for path in [
        "/absolute/secret",
        "/climbing/secret",
        "/twice/secret",
        "/absolute/.",
        "/file/.",
        "/../outside/secret",
    ] {
        if let Ok(tar) = scene.pack(path) {
            panic!("{path} gave {}", String::from_utf8_lossy(&tar));
        }
    }
    // The whole root holds the links themselves, and not what they lead to.
    for path in ["/", "/absolute", "/file", "/."] {
        let tar = scene.pack(path).unwrap();
        assert!(!String::from_utf8_lossy(&tar).contains("of the host"), "{path}");
    }
    let root = fs::File::open(&scene.root).unwrap();
    let link = stat(root.as_fd(), "/file").unwrap();
    assert!(
        link.is_symlink() && link.link_target.ends_with("/outside/secret"),
        "{link:?}"
    );
    // Circles end, and a root without the path says so.
    symlink("b", scene.root.join("a")).unwrap();
    symlink("a", scene.root.join("b")).unwrap();
    for path in ["/a/x", "/nosuch", "/dir/nosuch/x"] {
        assert!(scene.pack(path).is_err(), "{path}");
        assert!(scene.extract(path, Tar::new().file("x", b"")).is_err(), "{path}");
    }
}

/// The container exchanges a directory for a link again and again while files are put into it.
#[test]
fn a_root_that_changes_meanwhile_leads_nobody_outside() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let (swapped, spare) = (scene.root.join("swap"), scene.root.join("spare"));
    fs::create_dir(&swapped).unwrap();
    symlink(&scene.outside, &spare).unwrap();
    let end = AtomicBool::new(false);
    // Told behind the scope: a panic inside would leave the other thread running.
    let mut leaked = false;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !end.load(Ordering::Relaxed) {
                let exchanged =
                    rustix::fs::renameat_with(rustix::fs::CWD, &swapped, rustix::fs::CWD, &spare, flags);
                // The extraction has replaced one of them: both are made anew.
                let is_link = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
                if exchanged.is_err() || is_link(&swapped) == is_link(&spare) {
                    let _ = fs::remove_dir_all(&spare).or_else(|_| fs::remove_file(&spare));
                    let _ = symlink(&scene.outside, &spare);
                    let _ = fs::create_dir(&swapped);
                }
            }
        });
        for _ in 0..200 {
            let mut tar = Tar::new();
            tar.directory("swap", 0o755)
                .file("swap/new", b"evil")
                .file("swap/secret", b"evil")
                .directory("swap/d", 0o700);
            let _ = scene.extract("/", &tar);
            let _ = scene.extract("/swap", Tar::new().file("new", b"evil").file("secret", b"evil"));
            if let Ok(tar) = scene.pack("/swap/.") {
                leaked |= String::from_utf8_lossy(&tar).contains("of the host");
            }
        }
        end.store(true, Ordering::Relaxed);
    });
    assert!(!leaked, "a race brought a file of the host");
    scene.check("a race");
}

/// What is mounted cannot be replaced: its content is.
#[test]
fn a_mounted_file_is_written_to() {
    if !able() {
        return;
    }
    let scene = Scene::new();
    let (source, target) = (scene.outside.join("secret"), scene.root.join("hosts"));
    fs::write(&target, "").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
    // In a mount namespace of its own, so that nobody else sees the mount.
    let (_namespace, extracted) = sys::namespace::create_with(sys::namespace::Kind::Mount, || {
        sys::mount::set_propagation(Path::new("/"), sys::mount::Propagation::Private, true).unwrap();
        let tree = sys::mount::Tree::open(rustix::fs::CWD, &source, false).unwrap();
        tree.attach(fs::File::open(&target).unwrap().as_fd()).unwrap();
        let mut tar = Tar::new();
        tar.file("hosts", b"127.0.0.1 new");
        scene.extract("/", &tar)
    })
    .unwrap();
    extracted.unwrap();
    assert_eq!(fs::read_to_string(&source).unwrap(), "127.0.0.1 new");
    assert_eq!(fs::metadata(&source).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(&target).unwrap(), "");
}
