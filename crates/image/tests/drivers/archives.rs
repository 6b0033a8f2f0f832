//! Layers from archives: all drivers show the same.

use std::fs;

use store::StorageDriver;

use crate::bytes::{Header, Tar};
use crate::picture::{Picture, assert_same};
use crate::{Bench, each_driver};

each_driver!(
    whiteouts_are_about_what_is_below,
    what_is_not_said_is_as_below,
    a_layer_read_back_is_the_same_archive,
    many_layers,
);

fn base() -> Vec<u8> {
    Tar::new()
        .directory("usr", 0o751)
        .directory("usr/lib", 0o1770)
        .file("usr/lib/tool", b"tool")
        .hard_link("usr/lib/twin", "usr/lib/tool")
        .directory("etc", 0o755)
        .file("etc/a", b"a")
        .file("etc/b", b"b")
        .directory("var", 0o711)
        .directory("var/log", 0o755)
        .file("var/log/old", b"old")
        .pax(&[("SCHILY.xattr.user.below", b"x")])
        .directory("labelled", 0o700)
        .file("labelled/in", b"in")
        .symlink("bin", "usr/lib")
        .file("plain", b"plain")
        .header(&Header {
            typeflag: b'3',
            name: b"null",
            device: (1, 3),
            ..Header::default()
        })
        .finish()
}

/// Archives on top of [`base`], each with something that drivers could see differently.
fn tops() -> Vec<(&'static str, Vec<u8>)> {
    let mut tops = Vec::new();
    let mut add = |what, make: &dyn Fn(&mut Tar)| {
        let mut tar = Tar::new();
        make(&mut tar);
        tops.push((what, tar.finish()));
    };
    add("whiteouts", &|tar| {
        tar.file("etc/.wh.a", b"")
            .file(".wh.usr", b"")
            .file("var/.wh.nothing", b"");
    });
    add("a whiteout after what is there anew", &|tar| {
        tar.file("etc/a", b"new")
            .file("etc/.wh.a", b"")
            .file("usr/lib/own", b"")
            .file(".wh.usr", b"");
    });
    add("a whiteout of a directory that is there anew", &|tar| {
        tar.directory("usr", 0o700)
            .file("usr/own", b"own")
            .file(".wh.usr", b"");
    });
    add("opaque first", &|tar| {
        tar.directory("etc", 0o700)
            .file("etc/.wh..wh..opq", b"")
            .file("etc/own", b"own");
    });
    add("opaque last", &|tar| {
        tar.file("usr/lib/own", b"own")
            .file("usr/own", b"own")
            .file("usr/.wh..wh..opq", b"");
    });
    add("a directory with nothing of the one below", &|tar| {
        tar.directory("labelled", 0o755).file("labelled/more", b"more");
    });
    add("through a link below", &|tar| {
        tar.file("bin/own", b"own");
    });
    add("a file below where a directory is wanted", &|tar| {
        tar.file("plain/own", b"own");
    });
    add("a link below that is the layer's own as well", &|tar| {
        tar.symlink("bin", "etc").file("bin/own", b"own");
    });
    add("hard links to what is below", &|tar| {
        tar.hard_link("linked", "var/log/old")
            .hard_link("etc/again", "etc/a")
            .file("etc/.wh.a", b"");
    });
    add("kinds", &|tar| {
        tar.file("usr", b"a file")
            .directory("plain", 0o755)
            .symlink("etc", "var")
            .file("null", b"no device");
    });
    add("the root", &|tar| {
        tar.directory("./", 0o750).file("own", b"");
    });
    add("twice", &|tar| {
        tar.directory("etc/d", 0o755)
            .file("etc/d/in", b"")
            .file("etc/d", b"file")
            .file("etc/d", b"again");
    });
    add("deleted and made anew by what leads there", &|tar| {
        tar.file(".wh.etc", b"").file("etc/own", b"own");
    });
    tops
}

/// Without the times of directories that no archive tells of: those are when they were made.
fn said(mut picture: Picture) -> Picture {
    let said = Header::default().mtime.cast_signed();
    for item in picture
        .values_mut()
        .filter(|item| item.kind == "directory" && item.mtime.0 != said)
    {
        item.mtime = (0, 0);
    }
    picture
}

fn whiteouts_are_about_what_is_below(bench: Bench) {
    let below = bench.unpacked(None, &base());
    for (what, tar) in tops() {
        let layer = bench.unpacked(Some(below), &tar);
        // The plain rules, by an overlay of what both hold.
        let other = Bench::new(StorageDriver::Overlay).unwrap();
        let layered = other.unpacked(Some(other.unpacked(None, &base())), &tar);
        println!("{what}");
        assert_same(&said(other.picture(layered)), &said(bench.picture(layer)));
        // And a container on it, which the vfs driver copies.
        let container = bench.container(layer);
        assert_same(&bench.picture(layer), &bench.picture(container));
        assert_eq!(bench.changes(container), [""; 0], "{what}");
    }
}

fn what_is_not_said_is_as_below(bench: Bench) {
    let below = bench.unpacked(None, &base());
    let before = bench.picture(below);
    let layer = bench.unpacked(
        Some(below),
        &Tar::new()
            .file("usr/lib/own", b"")
            .file("var/log/.wh.old", b"")
            .finish(),
    );
    let after = bench.picture(layer);
    for path in ["", "usr", "usr/lib", "var", "var/log", "labelled"] {
        assert_eq!(
            before[std::path::Path::new(path)],
            after[std::path::Path::new(path)],
            "{path}"
        );
    }
}

fn a_layer_read_back_is_the_same_archive(bench: Bench) {
    let below = bench.unpacked(None, &base());
    for (what, tar) in tops() {
        let layer = bench.unpacked(Some(below), &tar);
        let read = bench.tar(layer);
        assert!(
            read == bench.tar(layer),
            "{what}: the same layer gives the same bytes"
        );
        let again = bench.unpacked(Some(below), &read);
        println!("{what}");
        assert_same(&bench.picture(layer), &bench.picture(again));
    }
}

/// More than Docker's 125.
fn many_layers(bench: Bench) {
    let mut top = None;
    for number in 0..140 {
        let mut tar = Tar::new();
        tar.file("all", number.to_string().as_bytes())
            .file(&number.to_string(), b"");
        if number > 0 {
            tar.file(&format!(".wh.{}", number - 1), b"");
        }
        top = Some(bench.unpacked(top, &tar.finish()));
    }
    let container = bench.container(top.unwrap());
    let root = bench.root(container);
    assert_eq!(fs::read_to_string(root.path.join("all")).unwrap(), "139");
    assert_eq!(fs::read_dir(&root.path).unwrap().count(), 2);
}
