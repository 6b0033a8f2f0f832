//! Caches that travel: what one engine did spares another one, which has nothing but the base image's name.
//!
//! Every step writes something random, so that equal results can only be the same ones.

use std::path::{Path, PathBuf};

use super::{Lab, files_with, lab};
use crate::private::Registry;
use crate::support::text;

/// A registry with the base image, and the Dockerfile of an app with a stage for its tools.
struct Shop {
    registry: Registry,
    dockerfile: String,
}

impl Shop {
    fn open(lab: &Lab) -> Option<Shop> {
        let registry = Registry::start("")?;
        let shop = Shop {
            dockerfile: format!(
                "FROM 127.0.0.1:{port}/base:1 AS tools\n\
                 RUN cat /proc/sys/kernel/random/uuid > /tool\n\
                 RUN head -c 3000000 /dev/urandom > /srv/big\n\
                 FROM 127.0.0.1:{port}/base:1\n\
                 WORKDIR /app\n\
                 COPY --from=tools /tool /app/tool\n\
                 RUN cat /proc/sys/kernel/random/uuid > /app/run\n\
                 ENV A=b\n\
                 COPY file /app/\n",
                port = registry.port
            ),
            registry,
        };
        lab.daemon.ok(&["tag", "box:1", &shop.name("base:1")]);
        lab.daemon.ok(&["push", &shop.name("base:1")]);
        shop.furnish(lab);
        Some(shop)
    }

    fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.registry.port)
    }

    /// Writes the context.
    fn furnish(&self, lab: &Lab) {
        lab.write("Dockerfile", &self.dockerfile);
        lab.write("file", "content\n");
    }

    /// An engine of its own with nothing in its cache.
    fn other(&self) -> Lab {
        let lab = Lab::start().unwrap();
        self.furnish(&lab);
        lab
    }
}

/// What is in the app that was built.
fn made(lab: &Lab) -> String {
    lab.run_image(
        "app:1",
        &["sh", "-c", "cat /app/tool /app/run /app/file; echo $A"],
    )
}

/// How many steps of the Dockerfile that hold files were known, and how many there are.
fn known(shown: &str) -> (usize, usize) {
    let step = |line: &&str| {
        let rest = line.trim_start_matches(|c: char| c == '#' || c.is_ascii_digit());
        rest.trim_start().starts_with('[') && !rest.contains("internal]") && !rest.contains("FROM")
    };
    let names: std::collections::HashSet<&str> = shown
        .lines()
        .filter(step)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let cached = |name: &&&str| shown.lines().any(|line| line == format!("{name} CACHED"));
    (names.iter().filter(cached).count(), names.len())
}

/// Files of the engine's store and of everything half done that are larger than the base.
fn large(lab: &Lab) -> Vec<PathBuf> {
    let content = lab.daemon.dir.path().join("root/content");
    let mut found = Vec::new();
    let mut waiting = vec![content];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                waiting.push(entry.path());
            } else if meta.len() > 2_500_000 {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Documents of caches in the engine's store, where they are of no use.
fn documents(lab: &Lab) -> Vec<PathBuf> {
    files_with(
        &lab.daemon.dir.path().join("root/content"),
        b"buildkit.cacheconfig",
    )
}

fn half_done(lab: &Lab) -> usize {
    std::fs::read_dir(lab.daemon.dir.path().join("root/content/ingest"))
        .unwrap()
        .count()
}

#[test]
fn a_cache_in_a_registry_spares_another_engine_the_steps() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    for (form, options) in [
        ("manifest", ""),
        ("index", ",image-manifest=false"),
        ("old", ",oci-mediatypes=false"),
    ] {
        let to = format!(
            "type=registry,ref={}{options}",
            shop.name(&format!("cache:{form}"))
        );
        let (_, shown) = lab.ok(&["buildx", "build", "-t", "app:1", "--cache-to", &to, "."]);
        assert!(shown.contains("exporting cache to registry"), "{shown}");
        let other = shop.other();
        let from = format!("type=registry,ref={}", shop.name(&format!("cache:{form}")));
        let (_, shown) = other.ok(&["buildx", "build", "-t", "app:1", "--cache-from", &from, "."]);
        assert_eq!(known(&shown), (6, 6), "{form}: {shown}");
        assert_eq!(made(&other), made(&lab), "{form}");
        // What is not part of the image was not fetched.
        assert_eq!(large(&other), Vec::<PathBuf>::new(), "{form}");
        // What came is known here from now on; what only its name was known of is made.
        let (_, shown) = other.ok(&["buildx", "build", "-t", "app:1", "."]);
        assert_eq!(known(&shown), (4, 6), "{form}: {shown}");
        assert_eq!(made(&other), made(&lab), "{form}");
        other.daemon.ok(&["builder", "prune", "-f"]);
        assert_eq!(documents(&lab), Vec::<PathBuf>::new(), "{form}");
        assert_eq!(half_done(&other), 0);
    }
}

/// Made here in another way, with the same content.
#[test]
fn what_is_here_is_not_brought_again() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let write = |lab: &Lab, way: &str| {
        let base = shop.name("base:1");
        let dockerfile = format!(
            "FROM {base} AS tools\nRUN echo one > /tool{way}\nFROM {base}\nCOPY --from=tools /tool /tool\n"
        );
        lab.write("Dockerfile", &dockerfile);
    };
    let to = format!("type=registry,ref={}", shop.name("cache:same"));
    let from = format!("type=registry,ref={}", shop.name("cache:same"));
    write(&lab, "");
    lab.ok(&["buildx", "build", "-t", "app:1", "--cache-to", &to, "."]);
    let other = shop.other();
    let layers = || {
        let format = "{{json .RootFS.Layers}}";
        other.daemon.ok(&["image", "inspect", "-f", format, "app:1"])
    };
    write(&other, " && true");
    other.ok(&["buildx", "build", "-t", "app:1", "."]);
    let before = layers();
    write(&other, "");
    let (_, shown) = other.ok(&["buildx", "build", "-t", "app:1", "--cache-from", &from, "."]);
    assert_eq!(known(&shown), (2, 2), "{shown}");
    assert_eq!(layers(), before);
}

#[test]
fn a_cache_of_every_step_holds_those_of_other_stages() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let to = format!("type=registry,ref={},mode=max", shop.name("cache:max"));
    let from = format!("type=registry,ref={}", shop.name("cache:max"));
    lab.ok(&["buildx", "build", "-t", "app:1", "--cache-to", &to, "."]);
    lab.ok(&["buildx", "build", "-t", "tools:1", "--target", "tools", "."]);
    let other = shop.other();
    // An engine that knows all of it from there hands all of it on.
    let (_, shown) = other.ok(&["buildx", "build", "--cache-from", &from, "--cache-to", &to, "."]);
    assert_eq!(known(&shown), (6, 6), "{shown}");
    let third = shop.other();
    let (_, shown) = third.ok(&[
        "buildx",
        "build",
        "-t",
        "tools:1",
        "--target",
        "tools",
        "--cache-from",
        &from,
        ".",
    ]);
    assert_eq!(known(&shown), (2, 2), "{shown}");
    let sum = |lab: &Lab| lab.run_image("tools:1", &["sh", "-c", "cat /tool; wc -c < /srv/big"]);
    assert_eq!(sum(&third), sum(&lab));
    // A step that is new is made on what came, and only its stage's.
    let fourth = shop.other();
    fourth.write("file", "changed\n");
    let (_, shown) = fourth.ok(&["buildx", "build", "-t", "app:1", "--cache-from", &from, "."]);
    assert_eq!(known(&shown), (5, 6), "{shown}");
    assert_eq!(large(&fourth), Vec::<PathBuf>::new());
    let text = made(&fourth);
    assert!(text.contains("changed\nb"), "{text}");
    assert!(text.starts_with(&made_tool(&lab)), "{text}");
}

fn made_tool(lab: &Lab) -> String {
    lab.run_image("tools:1", &["cat", "/tool"])
}

#[test]
fn a_cache_in_a_directory_spares_another_engine_the_steps() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let cache = lab.daemon.dir.path().join("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    lab.ok(&["buildx", "build", "-t", "app:1", "--cache-to", &to, "."]);
    let index = std::fs::read_to_string(cache.join("index.json")).unwrap();
    assert!(index.contains("\"latest\""), "{index}");
    let from = format!("type=local,src={}", cache.display());
    let other = shop.other();
    let (_, shown) = other.ok(&["buildx", "build", "-t", "app:1", "--cache-from", &from, "."]);
    assert_eq!(known(&shown), (6, 6), "{shown}");
    assert_eq!(made(&other), made(&lab));
    assert_eq!(large(&other), Vec::<PathBuf>::new());
}

#[test]
fn an_image_carries_the_cache_of_its_own_layers() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let name = shop.name("app:1");
    for how in [
        ["--cache-to", "type=inline"],
        ["--build-arg", "BUILDKIT_INLINE_CACHE=1"],
    ] {
        lab.ok(&["buildx", "build", how[0], how[1], "-t", &name, "--push", "."]);
        lab.daemon.ok(&["tag", &name, "app:1"]);
        for program in ["buildx", "berth", "classic"] {
            let other = shop.other();
            let context = other.context().display().to_string();
            match program {
                "buildx" => {
                    let from = format!("type=registry,ref={name}");
                    let (_, shown) =
                        other.ok(&["buildx", "build", "-t", "app:1", "--cache-from", &from, "."]);
                    assert_eq!(known(&shown), (6, 6), "{shown}");
                }
                "berth" => {
                    let shown = other
                        .daemon
                        .built(&["-t", "app:1", "--cache-from", &name, &context]);
                    assert_eq!(known(&shown), (6, 6), "{shown}");
                }
                _ => {
                    // As it was always done: the image is fetched first, and then its steps are known.
                    other.daemon.ok(&["pull", &name]);
                    let built = other
                        .daemon
                        .docker(&["build", "-t", "app:1", "--cache-from", &name, &context])
                        .unwrap();
                    let shown = text(&built.stdout);
                    assert_eq!(
                        shown.matches("Using cache").count(),
                        7,
                        "{shown}{}",
                        text(&built.stderr)
                    );
                }
            }
            assert_eq!(made(&other), made(&lab), "{program}");
        }
    }
    // What is built on such an image does not carry it on.
    lab.write("Dockerfile", &format!("FROM {name}\nENV X=y\n"));
    lab.ok(&["buildx", "build", "-t", "above:1", "."]);
    lab.daemon.ok(&[
        "save",
        "-o",
        &lab.context().join("above.tar").display().to_string(),
        "above:1",
    ]);
    let saved = files_with(&lab.context(), b"moby.buildkit.cache.v0");
    assert_eq!(saved, Vec::<PathBuf>::new());
}

#[test]
fn our_client_reads_and_writes_caches() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let context = lab.context().display().to_string();
    let to = format!("type=registry,ref={},mode=max", shop.name("cache:own"));
    lab.daemon
        .ok(&["build", "-t", "app:1", "--cache-to", &to, &context]);
    let other = shop.other();
    let context = other.context().display().to_string();
    let from = format!("type=registry,ref={}", shop.name("cache:own"));
    let words = ["-t", "app:1", "--explain", "--cache-from", &from, &context];
    let shown = other.daemon.built(&words);
    assert_eq!(known(&shown), (6, 6), "{shown}");
    assert_eq!(made(&other), made(&lab));
    // An image of this name that is here is not what is asked for.
    let third = shop.other();
    let context = third.context().display().to_string();
    third.write(
        "Dockerfile",
        &format!("FROM {}\nRUN echo other > /other\n", shop.name("base:1")),
    );
    third.daemon.ok(&[
        "build",
        "-t",
        &shop.name("cache:own"),
        "--cache-to",
        "type=inline",
        &context,
    ]);
    shop.furnish(&third);
    let shown = third
        .daemon
        .built(&["-t", "app:1", "--cache-from", &from, &context]);
    assert_eq!(known(&shown), (6, 6), "{shown}");
    let context = other.context().display().to_string();
    // A registry that is away: reading is done without, writing fails, unless it is said not to matter.
    let gone = "type=registry,ref=127.0.0.1:1/no:1";
    let shown = other.daemon.built(&["--cache-from", gone, &context]);
    assert!(
        shown.contains("importing cache manifest from 127.0.0.1:1/no:1") && shown.contains("ERROR: "),
        "{shown}"
    );
    let (_, said) = other.daemon.fails(&["build", "--cache-to", gone, &context]);
    assert!(
        said.contains("failed to export the cache to 127.0.0.1:1/no:1"),
        "{said}"
    );
    let ignored = format!("{gone},ignore-error=true");
    let shown = other.daemon.built(&["--cache-to", &ignored, &context]);
    assert!(
        shown.contains("exporting cache to registry") && shown.contains("ERROR: "),
        "{shown}"
    );
    // A directory, written by one engine's client and read by the other's.
    let place = lab
        .daemon
        .dir
        .path()
        .join("cache-directory")
        .display()
        .to_string();
    lab.daemon.built(&[
        "--cache-to",
        &format!("type=local,dest={place},mode=max"),
        &lab.context().display().to_string(),
    ]);
    let fourth = shop.other();
    let context = fourth.context().display().to_string();
    let from = format!("type=local,src={place}");
    let shown = fourth
        .daemon
        .built(&["-t", "app:1", "--cache-from", &from, &context]);
    assert_eq!(known(&shown), (6, 6), "{shown}");
    assert_eq!(made(&fourth), made(&lab));
    let context = other.context().display().to_string();
    assert_eq!(documents(&other), Vec::<PathBuf>::new());
    for (flag, value, part) in [
        ("--cache-to", "type=local", "dest is required"),
        ("--cache-from", "type=local", "src is required"),
        ("--cache-to", "type=gha", "type \"gha\" is not offered"),
        ("--cache-to", "type=registry", "requires the option ref"),
    ] {
        let (_, said) = other.daemon.fails(&["build", flag, value, &context]);
        assert!(said.contains(part), "{flag} {value}: {said}");
    }
}

#[test]
fn compose_files_name_caches() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let file = format!(
        "services:\n  app:\n    image: app:1\n    build:\n      context: .\n      cache_from: [\"type=registry,ref={0}\"]\n      cache_to: [\"type=registry,ref={0},mode=max\"]\n",
        shop.name("cache:compose")
    );
    lab.write("compose.yaml", &file);
    lab.ok(&["compose", "build"]);
    let other = shop.other();
    other.write("compose.yaml", &file);
    let (out, err) = other.ok(&["compose", "build"]);
    let shown = format!("{out}{err}");
    assert!(shown.matches("CACHED").count() >= 6, "{shown}");
    assert_eq!(made(&other), made(&lab));
}

#[test]
fn a_cache_that_cannot_be_used_is_done_without() {
    let lab = lab!();
    let Some(shop) = Shop::open(&lab) else { return };
    let cache = lab.daemon.dir.path().join("cache");
    let to = format!("type=local,dest={}", cache.display());
    let from = format!("type=local,src={}", cache.display());
    lab.ok(&["buildx", "build", "-t", "app:1", "--cache-to", &to, "."]);
    // A layer that is not what its name says: its step runs again.
    let layers = blobs(&cache, |bytes| bytes.starts_with(b"\x1f\x8b"));
    let base = std::fs::metadata("/bin/busybox").unwrap().len() / 4;
    for layer in layers
        .iter()
        .filter(|layer| layer.metadata().unwrap().len() < base)
    {
        let length = layer.metadata().unwrap().len();
        std::fs::write(layer, vec![7; usize::try_from(length).unwrap()]).unwrap();
    }
    let other = shop.other();
    let (_, shown) = other.ok(&["buildx", "build", "-t", "app:1", "--cache-from", &from, "."]);
    assert!(shown.contains("RUN cat /proc"), "{shown}");
    assert!(shown.contains("a result of the cache local:"), "{shown}");
    assert!(made(&other).ends_with("content\nb\n"));
    assert_ne!(made(&other), made(&lab));
    assert_eq!(half_done(&other), 0);
    // That is told, too, when the build fails.
    let failing = shop.other();
    failing.write("Dockerfile", &format!("{}RUN exit 3\n", shop.dockerfile));
    let (_, said) = failing.fails(&["buildx", "build", "--cache-from", &from, "."]);
    assert!(said.contains("a result of the cache local:"), "{said}");
    // A document that is damaged.
    for document in blobs(&cache, |bytes| bytes.starts_with(b"{")) {
        std::fs::write(document, "{}").unwrap();
    }
    let other = shop.other();
    let (_, shown) = other.ok(&["buildx", "build", "--cache-from", &from, "."]);
    assert!(shown.contains("ERROR"), "{shown}");
    assert_eq!(known(&shown).0, 0, "{shown}");
    // A registry that is away, and an image that carries nothing.
    for from in [
        "127.0.0.1:1/no:1".to_owned(),
        shop.name("base:1"),
        shop.name("none:1"),
    ] {
        let from = format!("type=registry,ref={from}");
        lab.ok(&["buildx", "build", "--cache-from", &from, "."]);
    }
    let gone = "type=registry,ref=127.0.0.1:1/no:1";
    let (_, said) = lab.fails(&["buildx", "build", "--cache-to", gone, "."]);
    assert!(
        said.contains("failed to export the cache to 127.0.0.1:1/no:1"),
        "{said}"
    );
    lab.ok(&[
        "buildx",
        "build",
        "--cache-to",
        &format!("{gone},ignore-error=true"),
        ".",
    ]);
    assert_eq!(half_done(&lab), 0);
    assert_eq!(documents(&lab), Vec::<PathBuf>::new());
}

/// The blobs of a directory in OCI's layout whose content is as it should be.
fn blobs(layout: &Path, is: impl Fn(&[u8]) -> bool) -> Vec<PathBuf> {
    let found = std::fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let found = found.flatten().map(|entry| entry.path());
    found.filter(|path| is(&std::fs::read(path).unwrap())).collect()
}
