//! `berth runtime`: the OCI runtime as a command line, with the words and flags that engines use to drive one.
//!
//! A container's state lies in `<root>/<id>/` (`state`): written before the container is visible, removed by
//! `delete`. Every command works on what it finds there and on the process; there is no daemon. Commands that
//! put code of ours into a container run from a sealed copy of the program (CVE-2019-5736).
//!
//! Source: OCI runtime-spec runtime.md; the command-line interface of the field's runtimes (opencontainers
//! "OCI Runtime Command Line Interface").

mod arguments;
mod console;
mod create;
mod document;
mod error;
mod events;
mod exec;
mod features;
mod inherited;
mod lifecycle;
mod log;
mod output;
mod rdt;
mod report;
mod signal;
mod state;
mod update;

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

use arguments::{Arguments, Command, Rootless};
use create::Groups;
use error::CliError;
use log::Log;
use state::Containers;

/// `args` are what follows `runtime`. Gives the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    // The seal comes before anything that would be done twice. A word that only looks like one of these commands costs
    // nothing but time, and a seal that fails is told below, when it is known to be needed.
    let seals = |word: &OsString| ["create", "run", "exec"].iter().any(|name| word == name);
    if args.iter().any(seals) && !sys::program::runs_sealed() {
        let _ = run_sealed();
    }
    // What starts a program is not used again, and reading the command line takes more than anything that follows.
    sys::memory::release_code();
    let name = OsString::from("berth runtime");
    let arguments = match Arguments::try_parse_from(std::iter::once(name).chain(args)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 1 } else { 0 };
        }
    };
    let log = Log::new(arguments.log.clone(), arguments.log_format, arguments.debug);
    log.listen();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            log.fail(&error.sentence());
            error.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<i32, CliError> {
    let groups = Groups {
        systemd: arguments.systemd_cgroup,
        optional: match arguments.rootless {
            Rootless::Auto => !sys::namespace::in_initial_user_namespace(),
            Rootless::True => true,
            Rootless::False => false,
        },
    };
    let containers = Containers::new(arguments.root);
    match arguments.command {
        Command::Create(options) => sealed(|| create::create(&containers, &options, groups)),
        Command::Run(options) => sealed(|| create::run(&containers, &options, groups)),
        Command::Exec(options) => sealed(|| exec::exec(&containers, options)),
        Command::Start { id } => lifecycle::start(&containers, &id),
        Command::Kill { all, id, signal } => lifecycle::kill(&containers, &id, &signal, all),
        Command::Delete { force, id } => lifecycle::delete(&containers, &id, force),
        Command::Pause { id } => lifecycle::pause(&containers, &id),
        Command::Resume { id } => lifecycle::resume(&containers, &id),
        Command::Update(options) => update::update(&containers, &options),
        Command::Events { interval, stats, id } => events::events(&containers, &id, interval, stats),
        Command::State { id } => report::state(&containers, &id),
        Command::List { format, quiet } => report::list(&containers, format, quiet),
        Command::Ps { format, id, options } => report::ps(&containers, &id, format, &options),
        Command::Spec { bundle, rootless } => report::spec(bundle.as_deref(), rootless),
        Command::Features => features::print(),
    }
}

/// Makes sure that what runs can never be written through from inside a container, then does the work.
fn sealed(work: impl FnOnce() -> Result<i32, CliError>) -> Result<i32, CliError> {
    if sys::program::runs_sealed() {
        // Reading the command line took as much memory as all that follows.
        sys::memory::release_unused();
        sys::memory::release_code();
        return work();
    }
    Err(run_sealed())
}

/// Begins anew from a sealed program. Why it could not, if it returns.
fn run_sealed() -> CliError {
    let program = match sys::program::Sealed::own() {
        Ok(program) => program,
        Err(error) => return CliError::io("seal the program", error),
    };
    let list = |items: &mut dyn Iterator<Item = OsString>| -> Vec<CString> {
        items
            .filter_map(|item| CString::new(item.into_vec()).ok())
            .collect()
    };
    let args = list(&mut std::env::args_os());
    let env = list(&mut std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    }));
    CliError::io(
        "run the sealed program",
        sys::process::exec_fd(program.as_fd(), &args, &env),
    )
}
