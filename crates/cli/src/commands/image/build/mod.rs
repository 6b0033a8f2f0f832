//! `build`: lends the engine what a build needs and shows what it says.
//!
//! ```text
//!   flags ──┬── context      what is lent as the context and the Dockerfile
//!           ├── attributes   how the Dockerfile is to be read
//!           ├── outputs      what becomes of the result
//!           └── caches       what is known already, and what others are to know
//!                  └──> run: session + Control (the room `session`) ──> progress, told
//! ```
//!
//! Builds go over BuildKit's protocol: the engine asks for the files, secrets and logins that it needs, when it needs them.

mod attributes;
mod caches;
mod context;
mod explain;
mod keys;
mod lent;
mod outputs;
mod print_context;
mod run;
mod told;

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::{env, hosts, limits, secrets};
use crate::session::Session;
use std::path::Path;

pub const COMMAND: Command = Command::new(
    "build",
    "Build an image from a Dockerfile",
    "[OPTIONS] PATH | URL | -",
    Arity::Between(1, 3),
    |session, matches| Box::pin(run(session, matches)),
)
.flags(&[&[
    Flag::list(
        "add-host",
        "Add an entry to the hosts file of build steps (host:ip)",
    )
    .check(hosts::check_add_host),
    Flag::list(
        "allow",
        "Allow something of steps (security.insecure, network.host)",
    ),
    Flag::list("annotation", "Say something beside the image ([TYPE:]KEY=VALUE)"),
    Flag::list(
        "attest",
        "Attestation beside the image (type=provenance,mode=max)",
    ),
    Flag::list("build-arg", "Set a variable of the build").check(env::check_env),
    Flag::list(
        "build-context",
        "Give a name a meaning (NAME=DIRECTORY, NAME=URL, NAME=docker-image://IMAGE)",
    ),
    Flag::text(
        "call",
        "Ask the Dockerfile instead of building it (check, outline, targets)",
    )
    .default("build"),
    Flag::bool("check", "Hold the Dockerfile against the rules (--call check)"),
    Flag::list(
        "cache-from",
        "Take cached steps from there (NAME, type=registry,ref=NAME or type=local,src=DIRECTORY)",
    ),
    Flag::list(
        "cache-to",
        "Write cached steps there (type=inline, type=registry,ref=NAME or type=local,dest=DIRECTORY)",
    ),
    Flag::text("cgroup-parent", "Cgroup below which build steps run"),
    Flag::bool("compress", "Compress the context").hidden(),
    Flag::int("cpu-period", "Period of the CPU quota in microseconds"),
    Flag::int("cpu-quota", "CPU time per period in microseconds"),
    Flag::int("cpu-shares", "Relative weight of CPU time").short('c'),
    Flag::text("cpuset-cpus", "CPUs to run on (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes to use (0-3, 0,1)"),
    Flag::bool("disable-content-trust", "Skip verification of image signatures")
        .default("true")
        .hidden(),
    Flag::bool(
        "explain",
        "Tell of each step whether the cache knew it, and why not",
    ),
    Flag::text("file", "Name of the Dockerfile (default 'PATH/Dockerfile')").short('f'),
    Flag::bool("force-rm", "Remove intermediate containers always"),
    Flag::text("iidfile", "Write the image's ID to this file"),
    Flag::text("isolation", "How build steps are isolated"),
    Flag::list("label", "Attach a label to the image").check(env::check_label),
    Flag::bool("load", "Keep the image in the engine, beside other outputs"),
    Flag::bytes("memory", "Limit of memory").short('m'),
    Flag::bytes(
        "memory-swap",
        "Limit of memory and swap together, -1 for unlimited swap",
    ),
    Flag::text("metadata-file", "Write what came of the build to this file"),
    Flag::text("network", "Network of RUN instructions").default("default"),
    Flag::bool("no-cache", "Do not use cached steps"),
    Flag::list("no-cache-filter", "Do not use cached steps of these stages"),
    Flag::list(
        "output",
        "What becomes of the result (DIRECTORY, -, type=local|tar|oci|docker|image|registry|cacheonly,dest=PATH)",
    )
    .short('o'),
    Flag::list("platform", "Platforms of the image, e.g. linux/arm64"),
    Flag::bool(
        "print-context",
        "Show which files may be asked for, and which ignore rule decided",
    ),
    Flag::text(
        "progress",
        "How progress is shown (auto, plain, tty, rawjson, quiet)",
    )
    .default("auto")
    .check(crate::progress::build::check),
    Flag::text("provenance", "Attest how the image was made (false, true, mode=max)"),
    Flag::bool("pull", "Fetch base images even when they are here"),
    Flag::bool("push", "Push the image under all of its names"),
    Flag::bool("quiet", "Show only the image's ID").short('q'),
    Flag::bool("rm", "Remove intermediate containers after success").default("true"),
    Flag::bool(
        "rewrite-timestamp",
        "Give files of new layers no time later than SOURCE_DATE_EPOCH",
    ),
    Flag::text("sbom", "Attest what the image holds (false, true, generator=IMAGE)"),
    Flag::list("secret", "Give steps a secret (id=ID,src=FILE or id=ID,env=NAME)")
        .check(secrets::check_secret),
    Flag::list("security-opt", "Security options"),
    Flag::bytes("shm-size", "Size of /dev/shm"),
    Flag::bool("squash", "Squash the new layers into one"),
    Flag::list("ssh", "Let steps use an agent for keys (default, ID=SOCKET or ID=KEY[,KEY])"),
    Flag::list("tag", "Name of the image")
        .short('t')
        .value("list")
        .check(check_tag),
    Flag::text("target", "Stage to build"),
    Flag::list("ulimit", "Limits of processes")
        .value("ulimit")
        .check(limits::check_ulimit),
]]);

fn check_tag(text: &str) -> Result<(), String> {
    spec::Reference::parse_normalized(text)
        .map(|_| ())
        .map_err(|error| format!("invalid tag {text:?}: {error}"))
}

async fn run(session: &Session, matches: &Matches) -> Outcome {
    let file = matches.text("file").unwrap_or_default();
    match matches.args.as_slice() {
        [_] => {}
        [word, first, second] if word == "diff" => return explain::diff(session, first, second).await,
        [word, list] if word == "history" && list == "ls" => return explain::list(session).await,
        _ => {
            return Err(Failure::text(
                "\"berth build\" takes one PATH, URL or -, or \"history ls\", or \"diff\" and two builds",
            )
            .hint("see berth build --help"));
        }
    }
    if matches.bool("print-context") {
        return print_context::run(Path::new(matches.arg(0)), file);
    }
    run::run(session, matches).await
}
