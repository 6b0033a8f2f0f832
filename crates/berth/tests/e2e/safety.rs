//! What hostile containers and images try on the engine. Each test names the hole it stands for and how an engine
//! with that hole behaves; `docs/threat-model.md` lists them.

mod binary;
mod copies;
mod devices;
mod kernel;
mod neighbours;
mod permissions;
mod report;
mod rights;
mod stages;

use crate::support::Daemon;

/// What a script prints (both streams) in a container made with these flags; its exit code does not matter.
fn inside(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    let script = format!("exec 2>&1; {script}");
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.extend(["box:1", "sh", "-c", &script]);
    crate::support::text(&daemon.run(&args).stdout)
}

/// The host's perl, for system calls that no applet makes.
const PERL: [&str; 6] = [
    "-v",
    "/usr:/usr:ro",
    "-v",
    "/lib:/lib:ro",
    "-v",
    "/lib64:/lib64:ro",
];

fn has_perl() -> bool {
    let there = std::path::Path::new("/usr/bin/perl").exists() && std::path::Path::new("/lib64").exists();
    if !there {
        println!("skipped: needs /usr/bin/perl (package perl-base)");
    }
    there
}

fn pid_of(daemon: &Daemon, container: &str) -> String {
    daemon
        .ok(&["inspect", "-f", "{{.State.Pid}}", container])
        .trim()
        .to_owned()
}
