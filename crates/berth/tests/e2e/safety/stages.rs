//! A stage of a build whose names are made so that a bind mount from it would show a directory of the host. An engine that
//! writes them into a list as they are has the kernel, or itself, take them apart somewhere else.

use std::path::PathBuf;

use crate::support::Daemon;

/// A directory of the host that no step may see.
fn secret(daemon: &Daemon) -> PathBuf {
    let dir = daemon.dir.path().join("host");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::write(dir.join("secret"), "the host's").unwrap();
    std::fs::write(dir.join("sub/secret"), "the host's").unwrap();
    dir
}

fn context(daemon: &Daemon, dockerfile: &str) -> String {
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.join("own"), "x".repeat(2000)).unwrap();
    context.display().to_string()
}

/// What a step sees at a path of a stage that these lines make.
fn seen(daemon: &Daemon, stage: &str, source: &str, flags: &str) -> String {
    let dockerfile = format!(
        "FROM box:1 AS stage\n{stage}\nFROM box:1\n\
         RUN --mount=type=bind,from=stage,source={source},target=/mnt{flags} find /mnt -type f | sort > /seen\n"
    );
    daemon.ok(&["build", "-t", "seen:1", &context(daemon, &dockerfile)]);
    daemon.ok(&["run", "--rm", "seen:1", "cat", "/seen"])
}

fn colons(daemon: &Daemon) {
    let host = secret(daemon);
    let path = format!("/d:{}", host.display());
    let made = format!("RUN mkdir -p /d '{path}' && cp /bin/busybox '{path}/one' && echo x > /d/other");
    let more = format!("{made}\nRUN cp /bin/busybox '{path}/two'");
    for flags in ["", ",rw"] {
        assert_eq!(
            seen(daemon, &made, &path, flags),
            "/mnt/one\n",
            "one layer{flags}"
        );
        assert_eq!(
            seen(daemon, &more, &path, flags),
            "/mnt/one\n/mnt/two\n",
            "two layers{flags}"
        );
    }
}

#[test]
fn a_colon_in_a_stages_path_is_a_part_of_it() {
    guard!();
    colons(&Daemon::start());
}

#[test]
fn a_colon_in_a_stages_path_is_a_part_of_it_where_files_are_shared() {
    guard!();
    colons(&Daemon::start_with(&["--store-dedup"]));
}

/// A link in a lower layer where the layers above have a directory.
#[test]
fn a_link_below_a_stages_directory_leads_nowhere() {
    guard!();
    let daemon = Daemon::start();
    let host = secret(&daemon);
    let stage = format!("RUN ln -s {} /d\nCOPY --link own /d/sub/own", host.display());
    assert_eq!(seen(&daemon, &stage, "/d/sub", ""), "/mnt/own\n");
    assert_eq!(seen(&daemon, &stage, "/d", ""), "/mnt/sub/own\n");
}

/// A name that is no text, and beside it a link whose name is what it would become as text.
#[test]
fn a_stages_path_that_is_no_text_is_refused() {
    guard!();
    let daemon = Daemon::start();
    let host = secret(&daemon);
    let dockerfile = format!(
        "FROM box:1 AS stage\n\
         RUN mkdir \"$(printf '/\\377')\" && ln -s \"$(printf '\\377')\" /link && ln -s {} \"$(printf '/\\357\\277\\275')\"\n\
         FROM box:1\n\
         RUN --mount=type=bind,from=stage,source=/link,target=/mnt find /mnt -type f\n",
        host.display()
    );
    let (_, said) = daemon.fails(&["build", "-t", "seen:1", &context(&daemon, &dockerfile)]);
    assert!(said.contains("not valid UTF-8"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}
