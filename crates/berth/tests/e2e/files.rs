//! `cp` in and out, and never outside of the container.

use crate::support::Daemon;

#[test]
fn files_are_copied_and_never_outside_of_the_container() {
    guard!();
    let daemon = Daemon::start();
    let host = daemon.dir.path().join("host");
    let victim = daemon.dir.path().join("victim");
    for dir in [&host, &victim] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(host.join("file"), "from the host\n").unwrap();
    let source = host.join("file").display().to_string();
    // The container points a link at a directory of the host, by its absolute path and by climbing.
    let links = format!(
        "ln -s {0} /absolute; ln -s ../../../../../../..{0} /climbing; sleep 1000",
        victim.display()
    );
    daemon.ok(&["run", "-d", "--name", "box", "box:1", "sh", "-c", &links]);
    for state in ["running", "stopped"] {
        daemon.ok(&["cp", &source, "box:/tmp/copied"]);
        let back = host.join(state).display().to_string();
        daemon.ok(&["cp", "box:/tmp/copied", &back]);
        assert_eq!(
            std::fs::read_to_string(&back).unwrap(),
            "from the host\n",
            "{state}"
        );
        for link in ["absolute", "climbing"] {
            // Whether it is refused or lands inside is the client's business; outside it must not be.
            daemon.run(&["cp", &source, &format!("box:/{link}/file")]);
            daemon.run(&["cp", &source, &format!("box:/{link}")]);
        }
        assert_eq!(
            std::fs::read_dir(&victim).unwrap().count(),
            0,
            "{state}: a copy left the container"
        );
        daemon.ok(&["stop", "-t", "0", "box"]);
    }
    assert!(
        daemon
            .fails(&["cp", "box:/nosuch", "-"])
            .1
            .contains("Could not find the file /nosuch in container box")
    );
}
