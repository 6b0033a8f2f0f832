//! Where COPY and ADD put things, whose they are, and that nothing leads outside.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use crate::lab::Lab;

#[tokio::test]
async fn destinations() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("a.txt", "a");
    lab.write("b.txt", "b");
    lab.write("dir/sub/c.txt", "c");
    lab.write("dir/d.md", "d");
    let built = lab
        .build(
            "FROM base\nWORKDIR /app\nCOPY a.txt .\nCOPY a.txt /new/name\nCOPY a.txt b.txt /two/\nCOPY dir /whole\n\
             COPY dir/ /etc\nCOPY *.txt globbed/\nCOPY dir/*/c.txt /deep/\nCOPY [\"a.txt\", \"/with space\"]\n\
             COPY dir /lib\nCOPY --parents dir/sub/c.txt /kept/\nCOPY --parents dir/./sub/c.txt /pivot/\n\
             COPY --exclude=**/*.md dir /noted/\nCOPY <<one <<two /inline/\n1 $HOME\none\n2\ntwo\n",
        )
        .await;
    let image = built.image();
    for (path, content) in [
        ("/app/a.txt", "a"),
        ("/new/name", "a"),
        ("/two/b.txt", "b"),
        ("/whole/sub/c.txt", "c"),
        ("/whole/d.md", "d"),
        ("/etc/d.md", "d"),
        ("/app/globbed/b.txt", "b"),
        ("/deep/c.txt", "c"),
        ("/with space", "a"),
        // Through the link of the base image, which stays.
        ("/usr/lib/d.md", "d"),
        ("/kept/dir/sub/c.txt", "c"),
        ("/pivot/sub/c.txt", "c"),
        ("/noted/sub/c.txt", "c"),
        ("/inline/one", "1 \n"),
        ("/inline/two", "2\n"),
    ] {
        assert_eq!(lab.cat(image, path), content, "{path}");
    }
    assert!(!lab.has(image, "/noted/d.md"));
    assert!(lab.cat(image, "/etc/passwd").starts_with("root"));
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn owners_and_permissions() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("run.sh", "x");
    std::fs::set_permissions(lab.context.join("run.sh"), PermissionsExt::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(lab.context.join("run.sh"), Some(77), Some(78)).unwrap();
    lab.write("dir/f", "x");
    let built = lab
        .build(
            "FROM base AS one\nCOPY --chown=5:6 run.sh /mine\nFROM base\nCOPY run.sh /plain\n\
             COPY --chown=node run.sh /named/\nCOPY --chown=7:root --chmod=600 run.sh /numbers\n\
             COPY --chmod=u=rwX,go=rX dir /dir\nCOPY --from=one /mine /kept\nUSER node\nWORKDIR /home/x\n",
        )
        .await;
    let error = built.error().to_string();
    assert!(error.contains("unable to find group root"), "{error}");
    let built = lab
        .build(
            "FROM base AS one\nCOPY --chown=5:6 run.sh /mine\nFROM base\nCOPY run.sh /plain\n\
             COPY --chown=node run.sh /named/\nCOPY --chown=7:8 --chmod=600 run.sh /numbers\n\
             COPY --chmod=u=rwX,go=rX dir /dir\nCOPY --from=one /mine /kept\nUSER node\nWORKDIR /home/x\n",
        )
        .await;
    let image = built.image();
    assert_eq!(lab.owner(image, "/plain"), (0o750, 0, 0));
    assert_eq!(lab.owner(image, "/named/run.sh"), (0o750, 1000, 1001));
    assert_eq!(lab.owner(image, "/named"), (0o755, 1000, 1001));
    assert_eq!(lab.owner(image, "/numbers"), (0o600, 7, 8));
    assert_eq!(lab.owner(image, "/dir/f"), (0o644, 0, 0));
    assert_eq!(lab.owner(image, "/kept"), (0o750, 5, 6));
    assert_eq!(lab.owner(image, "/home/x"), (0o755, 1000, 1001));
}

/// Sets the time of something in the context, links themselves, too.
fn set_time(path: &Path, time: (i64, i64)) {
    let time = Timespec {
        tv_sec: time.0,
        tv_nsec: time.1,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[tokio::test]
async fn directories_of_many_files_come_as_they_are() {
    let Some(lab) = Lab::new().await else { return };
    let modes = [0o644, 0o600, 0o755, 0o4711, 0o2755, 0o444, 0o000];
    // More of them than one thread takes at a time, and one that is more than is read at once.
    let files: Vec<(String, String, u32)> = (0..700)
        .map(|n| {
            let content = if n == 7 {
                "7".repeat(700_000)
            } else {
                "x".repeat(n % 5)
            };
            (format!("many/d{}/e/f{n}", n % 3), content, modes[n % modes.len()])
        })
        .collect();
    for (path, content, mode) in &files {
        lab.write(path, content);
        let path = lab.context.join(path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
        set_time(&path, (1_000_000_000, 123_456_789));
    }
    let first = lab.context.join("many/d0/e/f0");
    rustix::fs::setxattr(&first, "user.colour", b"red", XattrFlags::empty()).unwrap();
    std::fs::hard_link(&first, lab.context.join("many/d0/e/other")).unwrap();
    symlink("f1", lab.context.join("many/d1/e/link")).unwrap();
    let dir = lab.context.join("many/d2/e");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o2750)).unwrap();
    set_time(&dir, (1_100_000_000, 5));
    let built = lab
        .build(
            "FROM base\nCOPY many /many\nCOPY --chown=5:6 many /owned/\nCOPY --chmod=640 many/d2 /modes\n\
             COPY --parents many/d2 /kept/\n",
        )
        .await;
    let image = built.image();
    for (path, content, mode) in &files {
        let stat = lab.stat(image, &format!("/{path}")).unwrap();
        assert_eq!(
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid),
            (*mode, 0, 0),
            "{path}"
        );
        let time = (stat.st_mtime, stat.st_mtime_nsec as i64);
        assert_eq!(time, (1_000_000_000, 123_456_789), "{path}");
        assert_eq!(stat.st_size as usize, content.len(), "{path}");
        let owned = path.replace("many/", "/owned/");
        assert_eq!(lab.owner(image, &owned), (*mode, 5, 6), "{owned}");
        let names = if path == "many/d0/e/f0" { 2 } else { 1 };
        assert_eq!(stat.st_nlink, names, "{path}");
    }
    assert_eq!(lab.cat(image, "/many/d1/e/f7"), "7".repeat(700_000));
    assert_eq!(lab.cat(image, "/owned/d1/e/link"), "x");
    for dir in ["/many/d2/e", "/kept/many/d2/e"] {
        let stat = lab.stat(image, dir).unwrap();
        assert_eq!(stat.st_mode & 0o7777, 0o2750, "{dir}");
        let time = (stat.st_mtime, stat.st_mtime_nsec as i64);
        assert_eq!(time, (1_100_000_000, 5), "{dir}");
    }
    assert_eq!(lab.owner(image, "/modes/e/f2"), (0o640, 0, 0));
    assert_eq!(lab.attribute(image, "/many/d0/e/f0", "user.colour"), b"red");
    assert_eq!(lab.attribute(image, "/owned/d0/e/other", "user.colour"), b"red");
    // One file, of two names.
    let inode = |path: &str| lab.stat(image, path).unwrap().st_ino;
    assert_eq!(inode("/many/d0/e/f0"), inode("/many/d0/e/other"));
    assert_ne!(inode("/many/d0/e/f0"), inode("/owned/d0/e/f0"));
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn directories_come_where_links_of_the_image_lead() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("app/new/deep/a", "a");
    lab.write("app/old/f", "f");
    lab.write("app/link/sub/b", "b");
    lab.write("app/link/c", "c");
    lab.write("app/z/sub/b", "later");
    let before = "FROM base\nRUN mkdir -p /app/old && echo was > /app/old/f && echo kept > /app/old/kept && \
                  ln -s old /app/link && ln -s old /app/z && ln -s /made/later /to\n";
    let built = lab
        .build(&format!("{before}COPY app /app\nCOPY app/new /to\n"))
        .await;
    let image = built.image();
    for (path, content) in [
        ("/app/new/deep/a", "a"),
        ("/app/old/f", "f"),
        ("/app/old/kept", "kept\n"),
        // Two ways to one directory: what comes later stays.
        ("/app/old/sub/b", "later"),
        ("/app/old/c", "c"),
        ("/made/later/deep/a", "a"),
    ] {
        assert_eq!(lab.cat(image, path), content, "{path}");
    }
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn nothing_leads_outside() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("f", "x");
    symlink("/etc/hostname", lab.context.join("evil")).unwrap();
    symlink("../../../../etc", lab.context.join("evildir")).unwrap();
    for (line, message) in [
        ("COPY evil /x", "COPY failed: file not found in build context"),
        (
            "COPY evildir/hostname /x",
            "COPY failed: file not found in build context",
        ),
        (
            "COPY ../f /x",
            "COPY failed: forbidden path outside the build context: ../f ()",
        ),
        (
            "COPY nothing /x",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist",
        ),
        (
            "COPY f Dockerfile /x",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        (
            "COPY --from=base /nothing /x",
            "COPY failed: stat nothing: file does not exist",
        ),
    ] {
        let built = lab.build(&format!("FROM base\n{line}\n")).await;
        let error = built.error();
        assert!(error.to_string().starts_with(message), "{line}: {error}");
        assert_eq!(error.snippet().map(|snippet| snippet.line()), Some(2));
        assert!(built.text.contains(&format!("2 | {line}")), "{}", built.text);
    }
    // The link of the image leads to its own /tmp.
    let name = format!("berth-outside-{}", std::process::id());
    let built = lab.build(&format!("FROM base\nCOPY f /outside/{name}\n")).await;
    assert_eq!(lab.cat(built.image(), &format!("/tmp/{name}")), "x");
    assert!(!std::path::Path::new("/tmp").join(name).exists());
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn dockerignore_holds_for_copies() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("keep/a", "a");
    lab.write("keep/secret", "s");
    lab.write("logs/x/deep.log", "l");
    lab.write("logs/keep.log", "k");
    lab.write(
        ".dockerignore",
        "**/secret\nlogs\n!logs/keep.log\nDockerfile\n.dockerignore\n",
    );
    let built = lab.build("FROM base\nCOPY . /all/\n").await;
    let image = built.image();
    assert!(lab.has(image, "/all/keep/a") && lab.has(image, "/all/logs/keep.log"));
    for path in [
        "/all/keep/secret",
        "/all/logs/x",
        "/all/Dockerfile",
        "/all/.dockerignore",
    ] {
        assert!(!lab.has(image, path), "{path}");
    }
    let built = lab.build("FROM base\nCOPY keep/secret /x\n").await;
    assert!(
        built.error().to_string().contains("excluded by .dockerignore"),
        "{}",
        built.error()
    );
    // What is ignored does not change the key.
    lab.write("logs/x/deep.log", "changed");
    let built = lab.build("FROM base\nCOPY . /all/\n").await;
    assert!(built.text.contains("Using cache"), "{}", built.text);
}

#[tokio::test]
async fn archives_are_unpacked_by_add_alone() {
    let Some(lab) = Lab::new().await else { return };
    let archive = |path: &str, content: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(3);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, content).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &tar.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    };
    std::fs::write(lab.context.join("x.tgz"), archive("in/file", b"hello")).unwrap();
    let built = lab
        .build("FROM base\nADD x.tgz /add\nCOPY x.tgz /copy\nADD --unpack=false x.tgz /kept/\nADD Dockerfile /plain\n")
        .await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/add/in/file"), "hello");
    assert_eq!(lab.owner(image, "/add/in/file").1, 3);
    assert!(lab.has(image, "/copy") && lab.has(image, "/kept/x.tgz") && lab.has(image, "/plain"));
    let name = format!("berth-escape-{}", std::process::id());
    std::fs::write(
        lab.context.join("bad.tgz"),
        archive(&format!("../../{name}"), b"bad"),
    )
    .unwrap();
    let _ = lab.build("FROM base\nADD bad.tgz /d/\n").await;
    for dir in ["/", "/tmp", "/d"] {
        assert!(!std::path::Path::new(dir).join(&name).exists(), "{dir}");
    }
    assert_eq!(lab.leftovers(), 0);
}
