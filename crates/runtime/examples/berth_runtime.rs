//! The runtime's command line and the in-container init as a program of their own, for the tests of this crate
//! and for trying them without the whole engine.

use std::ffi::OsString;

fn main() {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let init = std::path::Path::new(&name)
        .file_name()
        .is_some_and(|name| name == "docker-init");
    std::process::exit(if init {
        runtime::init::main(rest)
    } else {
        runtime::cli::main(rest)
    });
}
