//! The same archive unpacked by GNU tar and by us, and the same layers by umoci: not a byte may differ.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bytes::{Header, Tar};
use crate::picture::{assert_same, merged, picture};
use crate::{able, apply, place};

/// cap_net_bind_service=ep as the kernel keeps it (linux/capability.h, vfs_cap_data revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: needs {program} (package {program})");
    }
    found
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn set_xattr(path: &Path, key: &str, value: &[u8]) {
    let dir = fs::File::open(path.parent().unwrap()).unwrap();
    sys::beneath::set_xattr(
        dir.as_fd(),
        path.file_name().unwrap(),
        std::ffi::OsStr::new(key),
        value,
    )
    .unwrap();
}

fn set_times(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

/// Everything a root filesystem may hold.
fn rich_tree(top: &Path) {
    let own =
        |path: &Path, uid: u32, gid: u32| std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    let long = "n".repeat(200);
    let deep = top.join(format!("deep/{long}/{long}"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(format!("{long}é\u{1f980}")), "long").unwrap();
    symlink(format!("{long}/{long}/{long}"), deep.join("long-link")).unwrap();

    let file = top.join("setuid");
    fs::write(&file, "program").unwrap();
    own(&file, 70_000, 4_000_000_000);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();

    let file = top.join("capable");
    fs::write(&file, "program").unwrap();
    set_xattr(&file, "security.capability", &CAPABILITY);
    set_xattr(&file, "user.note", b"with\0zero and \n line");
    set_xattr(&file, "trusted.secret", b"");

    fs::write(top.join("first"), "linked").unwrap();
    fs::hard_link(top.join("first"), top.join("second")).unwrap();
    fs::create_dir(top.join("sticky")).unwrap();
    fs::hard_link(top.join("first"), top.join("sticky/third")).unwrap();
    fs::set_permissions(top.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    set_xattr(&top.join("sticky"), "user.directory", b"yes");

    let sparse = fs::File::create(top.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 3 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::create_dir(top.join("hidden")).unwrap();
    fs::set_permissions(top.join("hidden"), fs::Permissions::from_mode(0o000)).unwrap();

    symlink("nowhere/at all", top.join("dangling")).unwrap();
    own(&top.join("dangling"), 65_536, 100_000);
    let node = |name: &str, kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, top.join(name), kind, mode, device).unwrap();
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    };
    node("fifo", rustix::fs::FileType::Fifo, 0);
    node(
        "null",
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    node(
        "block",
        rustix::fs::FileType::BlockDevice,
        rustix::fs::makedev(259, 70_000),
    );

    for (name, seconds, nanos) in [
        ("setuid", 1_234_567_890, 123_456_789),
        ("capable", -86_400, 500_000_000),
        ("dangling", 4_102_444_800, 1),
        ("fifo", 0, 0),
        ("sticky", 1_000_000_000, 999_999_999),
        ("deep", 1_000_000_001, 7),
    ] {
        set_times(&top.join(name), seconds, nanos);
    }
}

fn gnu_unpack(tar: &Path, dest: &Path) {
    run(Command::new("tar")
        .args([
            "-x",
            "-p",
            "--numeric-owner",
            "--same-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-f",
        ])
        .arg(tar)
        .arg("-C")
        .arg(dest));
}

#[test]
fn gnu_tar_and_we_make_the_same_of_an_archive() {
    if !able() || !has("tar") {
        return;
    }
    let (dir, paths) = place(&["tree", "theirs", "ours"]);
    let [tree, theirs, ours] = &paths[..] else {
        panic!()
    };
    rich_tree(tree);
    for format in ["posix", "gnu"] {
        let tar = dir.path().join(format!("{format}.tar"));
        let mut pack = Command::new("tar");
        pack.args([
            "-c",
            "--sparse",
            "--numeric-owner",
            &format!("--format={format}"),
            "-f",
        ])
        .arg(&tar);
        if format == "posix" {
            pack.args(["--xattrs", "--xattrs-include=*"]);
        }
        run(pack.arg("-C").arg(tree).arg("."));
        for dest in [theirs, ours] {
            fs::remove_dir_all(dest).unwrap();
            fs::create_dir(dest).unwrap();
        }
        gnu_unpack(&tar, theirs);
        apply(&fs::read(&tar).unwrap(), ours, &[]).unwrap();
        assert_same(&picture(theirs), &picture(ours));
        // The holes are holes: three pages are written at most.
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(ours.join("sparse")).unwrap());
        assert!(blocks <= 64, "{format}: the sparse file takes {blocks} blocks");
    }
    // The posix archive loses nothing: the copy is the tree.
    let tar = dir.path().join("posix.tar");
    fs::remove_dir_all(ours).unwrap();
    fs::create_dir(ours).unwrap();
    apply(&fs::read(&tar).unwrap(), ours, &[]).unwrap();
    assert_same(&picture(tree), &picture(ours));
}

/// Our archive of the tree, read by GNU tar.
#[test]
fn gnu_tar_reads_what_we_write() {
    if !able() || !has("tar") {
        return;
    }
    let (dir, paths) = place(&["tree", "theirs"]);
    let [tree, theirs] = &paths[..] else { panic!() };
    rich_tree(tree);
    let tar = dir.path().join("ours.tar");
    let mut bytes = Vec::new();
    image::layer::diff(tree, &[], &mut bytes).unwrap();
    fs::write(&tar, bytes).unwrap();
    gnu_unpack(&tar, theirs);
    let (mut tree, mut theirs) = (merged(picture(tree)), merged(picture(theirs)));
    for picture in [&mut tree, &mut theirs] {
        // The top directory itself is no part of a layer, and layers have whole seconds, as Docker's do.
        picture.remove(Path::new(""));
        picture.values_mut().for_each(|item| item.mtime.1 = 0);
    }
    assert_same(&tree, &theirs);
}

/// Whiteouts and opaque directories across three layers, as umoci merges them.
#[test]
fn umoci_and_we_make_the_same_of_layers() {
    if !able() || !has("umoci") {
        return;
    }
    let owned = |tar: &mut Tar, name: &str, uid: u32| {
        tar.header(&Header {
            name: name.as_bytes(),
            uid,
            gid: uid,
            ..Header::default()
        });
    };
    let mut bottom = Tar::new();
    bottom
        .directory("etc", 0o755)
        .file("etc/a", b"1")
        .file("etc/b", b"1")
        .directory("old", 0o700)
        .file("old/x", b"1");
    bottom
        .directory("opaque", 0o755)
        .file("opaque/gone", b"1")
        .file("file", b"1")
        .symlink("link", "etc");
    bottom
        .hard_link("twin", "file")
        .directory("kind", 0o755)
        .file("kind/x", b"1");
    owned(&mut bottom, "owned", 60_000);
    let mut middle = Tar::new();
    middle
        .file("etc/.wh.a", b"")
        .file(".wh.old", b"")
        .directory("opaque", 0o711)
        .file("opaque/.wh..wh..opq", b"");
    middle
        .file("opaque/new", b"2")
        .file(".wh.link", b"")
        .file("kind", b"2")
        .file("file", b"changed");
    let mut top = Tar::new();
    top.directory("old", 0o750)
        .file("old/y", b"3")
        .file("etc/a", b"3")
        .file("opaque/.wh.new", b"");
    top.directory("link", 0o755)
        .file("link/in", b"3")
        .file(".wh.nosuch", b"");

    let layers = [bottom.finish(), middle.finish(), top.finish()];
    let (dir, paths) = place(&["layout", "0", "1", "2"]);
    write_layout(&paths[0], &layers);
    let bundle = dir.path().join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:test", paths[0].display()))
        .arg(&bundle));

    let mut lowers: Vec<PathBuf> = Vec::new();
    for (layer, path) in layers.iter().zip(&paths[1..]) {
        apply(layer, path, &lowers).unwrap();
        lowers.insert(0, path.clone());
    }
    let overlay = sys::mount::Overlay {
        lower: lowers,
        read_only: true,
        ..sys::mount::Overlay::default()
    };
    let root = overlay.mount_detached().unwrap();
    let merged_root = PathBuf::from(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&root)
    ));
    let (mut ours, mut theirs) = (
        merged(picture(&merged_root)),
        merged(picture(&bundle.join("rootfs"))),
    );
    for picture in [&mut ours, &mut theirs] {
        picture.remove(Path::new(""));
        // A hard link that another layer replaced half of stays linked with itself only.
        for item in picture.values_mut() {
            item.twin = None;
            item.xattrs.clear();
        }
        // Times of directories that later layers put something into without naming them are nobody's word.
        for name in ["etc", "kind"] {
            if let Some(item) = picture.get_mut(Path::new(name)) {
                item.mtime = (0, 0);
            }
        }
    }
    assert_same(&theirs, &ours);
}

fn write_layout(dir: &Path, layers: &[Vec<u8>]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = spec::Digest::sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    let described = |media: &str, (digest, size): &(spec::Digest, usize)| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{media}","digest":"{digest}","size":{size}}}"#)
    };
    let put_layers: Vec<_> = layers.iter().map(|layer| put(layer)).collect();
    let diffs: Vec<String> = put_layers
        .iter()
        .map(|(digest, _)| format!("\"{digest}\""))
        .collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diffs.join(",")
    );
    let config = put(config.as_bytes());
    let parts: Vec<String> = put_layers
        .iter()
        .map(|layer| described("layer.v1.tar", layer))
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        described("config.v1+json", &config),
        parts.join(",")
    );
    let manifest = put(manifest.as_bytes());
    let entry = described("manifest.v1+json", &manifest);
    let entry = entry.replacen(
        '{',
        r#"{"annotations":{"org.opencontainers.image.ref.name":"test"},"#,
        1,
    );
    fs::write(
        dir.join("index.json"),
        format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#),
    )
    .unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
