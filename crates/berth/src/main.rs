//! The one binary: its first argument (or the name it is called by) decides the role, the role gives the exit code.
//!
//! The monitor and the init run once per container, so they are told apart before anything else is touched.

use std::ffi::OsString;
use std::path::Path;

fn main() {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    std::process::exit(role(&name, rest));
}

fn role(name: &OsString, rest: Vec<OsString>) -> i32 {
    match Path::new(name).file_name().and_then(|n| n.to_str()) {
        Some("docker-init") => return runtime::init::main(rest),
        Some("dockerd") => return daemon::main(rest),
        // Engines name a runtime by one path and add nothing: a link to the binary is that path.
        Some("berth-runtime" | "runc" | "crun") => return runtime::cli::main(rest),
        _ => {}
    }
    match rest.first().and_then(|word| word.to_str()) {
        Some("monitor") => monitor::main(),
        Some(monitor::forward::ROLE) => monitor::forward::main(),
        Some("daemon") => daemon::main(rest.into_iter().skip(1).collect()),
        Some("runtime") => runtime::cli::main(rest.into_iter().skip(1).collect()),
        _ => cli::main(rest),
    }
}
