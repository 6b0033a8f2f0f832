//! `build`: sends a context and shows what the builder says.
//!
//! The context is a directory (packed while it is sent), a tar or a Dockerfile on stdin (`-`), or a URL that the engine
//! fetches itself. The Dockerfile may lie outside the context or come from stdin; it then travels under a private name.

use super::{built, explain, print_context};
use crate::auth;
use crate::client::body::{Body, BodyWriter};
use crate::client::query::Query;
use crate::command::{Arity, Command};
use crate::commands::container::create::platform;
use crate::context::{self, Extra};
use crate::dockerignore::Rules;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::grammar::{env, hosts, limits, secrets};
use crate::progress::{self, To};
use crate::session::{Session, say};
use crate::terminal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, header};
use serde_json::json;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

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
    Flag::list("allow", "Allow something of steps (security.insecure)"),
    Flag::list("build-arg", "Set a variable of the build").check(env::check_env),
    Flag::text(
        "call",
        "Ask the Dockerfile instead of building it (check, outline, targets)",
    )
    .default("build"),
    Flag::bool("check", "Hold the Dockerfile against the rules (--call check)"),
    Flag::list(
        "cache-from",
        "Take cached steps from there (NAME or type=registry,ref=NAME)",
    ),
    Flag::list(
        "cache-to",
        "Write cached steps there (type=inline, type=registry,ref=NAME,mode=max)",
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
    Flag::bytes("memory", "Limit of memory").short('m'),
    Flag::bytes(
        "memory-swap",
        "Limit of memory and swap together, -1 for unlimited swap",
    ),
    Flag::text("metadata-file", "Write what came of the build to this file"),
    Flag::text("network", "Network of RUN instructions").default("default"),
    Flag::bool("no-cache", "Do not use cached steps"),
    Flag::text("platform", "Platform of the image, e.g. linux/arm64"),
    Flag::bool(
        "print-context",
        "Show what would be sent, and which ignore rule decided",
    ),
    Flag::text("progress", "How progress is shown (accepted for compatibility)").hidden(),
    Flag::bool("load", "Keep the image in the engine (always so)").hidden(),
    Flag::bool("pull", "Fetch base images even when they are here"),
    Flag::bool("push", "Push the image under all of its names"),
    Flag::bool("quiet", "Show only the image's ID").short('q'),
    Flag::bool("rm", "Remove intermediate containers after success").default("true"),
    Flag::bool(
        "rewrite-timestamp",
        "Give files of new layers no time later than SOURCE_DATE_EPOCH",
    ),
    Flag::list("secret", "Give steps a secret (id=ID,src=FILE or id=ID,env=NAME)")
        .check(secrets::check_secret),
    Flag::list("security-opt", "Security options"),
    Flag::bytes("shm-size", "Size of /dev/shm"),
    Flag::bool("squash", "Squash the new layers into one"),
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

/// What is sent.
#[derive(Default)]
struct Source {
    body: Option<Body>,
    remote: String,
    /// The Dockerfile's name within the context.
    dockerfile: String,
}

/// Dockerfiles above this size are a mistake.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// What the Dockerfile is asked instead of being built.
fn call(matches: &Matches) -> String {
    match (matches.bool("check"), matches.text_or_default("call")) {
        (true, _) => "check".to_owned(),
        (false, "build") => String::new(),
        (false, call) => call.to_owned(),
    }
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
    let call = call(matches);
    if matches.bool("push") && matches.list("tag").is_empty() {
        return Err(Failure::text("tag is needed when pushing to registry").hint("name the image with -t"));
    }
    let source = match matches.arg(0) {
        "-" if file == "-" => {
            return Err(Failure::text(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        "-" => from_stdin(file)?,
        url if is_remote(url) => Source {
            remote: url.to_owned(),
            dockerfile: file.to_owned(),
            body: None,
        },
        directory => from_directory(Path::new(directory), file, !call.is_empty())?,
    };
    let quiet = matches.bool("quiet");
    let path = query(matches, &source, &call)?;
    let mut headers = auth::all_headers(session.config())?;
    let secrets = secrets::secrets(matches.list("secret")).map_err(Failure::text)?;
    let kind = match secrets.is_empty() {
        true => "application/x-tar",
        false => "application/vnd.berth.build.v1",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut body = source.body.unwrap_or_else(Body::empty);
    if !secrets.is_empty() {
        body = body.preceded(extras(&secrets));
    }
    let sent = body.sent().filter(|_| !quiet && call.is_empty());
    let asked = session.client.send(Method::POST, &path, headers, body);
    let reply = match &sent {
        Some(sent) => progress::sending("Sending build context to Docker daemon", sent, asked).await?,
        None => asked.await?,
    };
    let mut id = String::new();
    let to = if quiet { To::Nowhere } else { To::Stdout };
    let mut findings = 0;
    let mut explained = explain::Explanations::default();
    let mut aux = |value: &serde_json::Value| {
        explained.take(value);
        if let Some(found) = value.get("Findings").and_then(serde_json::Value::as_i64) {
            findings = found;
        }
        if let Some(found) = value.get("ID").and_then(serde_json::Value::as_str) {
            id = found.to_owned();
        }
    };
    match quiet {
        false => progress::show(reply.lines(), to, &mut aux).await?,
        true => {
            // Quiet shows the whole output after all when the build fails.
            let mut lines = reply.lines();
            let mut said = String::new();
            while let Some(line) = lines.next().await? {
                let message: api_types::ProgressMessage = serde_json::from_slice(&line).unwrap_or_default();
                said.push_str(&message.stream);
                if let Some(value) = &message.aux {
                    aux(&serde_json::to_value(value).unwrap_or_default());
                }
                if !message.error.is_empty() {
                    eprint!("{}", crate::format::printable(&said));
                    let code = progress::code_of(&message);
                    return Err(Failure::text(message.error).with_code(code));
                }
            }
            if id.is_empty() {
                // A daemon in quiet mode streams the ID alone.
                id = said.trim().to_owned();
            }
            say(&id)?;
        }
    }
    if !call.is_empty() {
        return Ok(i32::from(findings > 0));
    }
    if matches.bool("explain") {
        for line in explained.lines() {
            say(&line)?;
        }
    }
    if let Some(path) = matches.text("iidfile") {
        if id.is_empty() {
            return Err(Failure::text(format!(
                "server did not provide an image ID. Cannot write {path}"
            )));
        }
        std::fs::write(path, &id).map_err(|error| Failure::text(format!("cannot write {path}: {error}")))?;
    }
    let names = built::names(matches.list("tag"))?;
    if matches.bool("push") {
        built::push(session, &names, to).await?;
    }
    if let Some(path) = matches.text("metadata-file") {
        built::write_metadata(session, path, &id, &names).await?;
    }
    Ok(0)
}

/// What goes in front of the context: a length, and a document of that length.
fn extras(secrets: &std::collections::BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let encoded: serde_json::Map<String, serde_json::Value> = secrets
        .iter()
        .map(|(id, content)| (id.clone(), json!(STANDARD.encode(content))))
        .collect();
    let document = json!({"secrets": encoded}).to_string().into_bytes();
    let length = u32::try_from(document.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &document].concat()
}

fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

fn query(matches: &Matches, source: &Source, call: &str) -> Result<String, Failure> {
    let number = |flag: &str| {
        matches
            .int(flag)
            .map(|number| number.to_string())
            .unwrap_or_default()
    };
    let bytes = |flag: &str| {
        matches
            .bytes(flag)
            .map(|number| number.to_string())
            .unwrap_or_default()
    };
    let mut query = Query::new("/build");
    for tag in matches.list("tag") {
        query = query.text("t", tag);
    }
    for host in matches.list("add-host") {
        query = query.text("extrahosts", &hosts::add_host(host).map_err(Failure::text)?);
    }
    for name in matches.list("allow") {
        query = query.text("allow", name);
    }
    for option in matches.list("security-opt") {
        query = query.text("securityopt", option);
    }
    let mut arguments: serde_json::Map<String, serde_json::Value> = matches
        .list("build-arg")
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), json!(value)),
            // A bare name takes the client's own value; one the client lacks is left to the Dockerfile.
            None => (
                text.clone(),
                std::env::var(text).map_or(json!(null), |value| json!(value)),
            ),
        })
        .collect();
    // A time that the environment asks for is for every tool that makes something.
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        arguments.entry("SOURCE_DATE_EPOCH").or_insert(json!(epoch));
    }
    let ulimits: Result<Vec<_>, _> = matches
        .list("ulimit")
        .iter()
        .map(|text| limits::ulimit(text))
        .collect();
    let ulimits = ulimits.map_err(Failure::text)?;
    // A name with options is one, whatever is between its commas.
    let cache: Vec<&str> = matches
        .list("cache-from")
        .iter()
        .flat_map(|text| match text.contains('=') {
            true => vec![text.as_str()],
            false => text.split(',').collect(),
        })
        .collect();
    let labels = env::pairs(matches.list("label"));
    let network = matches.text_or_default("network");
    query = query
        .flag("q", matches.bool("quiet"))
        .flag("nocache", matches.bool("no-cache"))
        .always("rm", if matches.bool("rm") { "1" } else { "0" })
        .flag("forcerm", matches.bool("force-rm"))
        .flag("pull", matches.bool("pull"))
        .flag("explain", matches.bool("explain"))
        .flag("squash", matches.bool("squash"))
        .flag("rewritetimestamp", matches.bool("rewrite-timestamp"))
        .text("isolation", matches.text("isolation").unwrap_or_default())
        .text("cpusetcpus", matches.text("cpuset-cpus").unwrap_or_default())
        .text("cpusetmems", matches.text("cpuset-mems").unwrap_or_default())
        .text("cpushares", &number("cpu-shares"))
        .text("cpuquota", &number("cpu-quota"))
        .text("cpuperiod", &number("cpu-period"))
        .text("memory", &bytes("memory"))
        .text("memswap", &bytes("memory-swap"))
        .text("shmsize", &bytes("shm-size"))
        .text("cgroupparent", matches.text("cgroup-parent").unwrap_or_default())
        .text("dockerfile", &source.dockerfile)
        .text("remote", &source.remote)
        .text("call", call)
        .text("target", matches.text("target").unwrap_or_default())
        .text("networkmode", network)
        .text("platform", &platform(matches)?.to_lowercase())
        .always("version", "1");
    if !arguments.is_empty() {
        query = query.text("buildargs", &json!(arguments).to_string());
    }
    if !labels.is_empty() {
        query = query.text("labels", &json!(labels).to_string());
    }
    if !ulimits.is_empty() {
        query = query.text("ulimits", &json!(ulimits).to_string());
    }
    if !cache.is_empty() {
        query = query.text("cachefrom", &json!(cache).to_string());
    }
    let cache_to = matches.list("cache-to");
    if !cache_to.is_empty() {
        query = query.text("cacheto", &json!(cache_to).to_string());
    }
    Ok(query.build())
}

fn read_dockerfile(mut source: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .by_ref()
        .take(DOCKERFILE_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::text(format!("cannot read the Dockerfile: {error}")))?;
    Ok(bytes)
}

/// A name no file of the context has.
fn private_name() -> String {
    format!(".dockerfile.{}", spec::Id::random().short())
}

fn pack(root: Option<PathBuf>, rules: Rules, extra: Vec<Extra>) -> Result<Body, Failure> {
    let (writer, body) = Body::piped();
    let feed = move || {
        let mut writer = writer;
        let result = match &root {
            Some(root) => context::pack(root, &rules, &extra, &mut writer),
            None => context::pack_files(&extra, &mut writer),
        };
        BodyWriter::finish(writer, result);
    };
    std::thread::Builder::new()
        .name("context".into())
        .spawn(feed)
        .map_err(|error| Failure::text(format!("cannot start a thread: {error}")))?;
    Ok(body)
}

/// `ask`: only the Dockerfile and its ignore file are needed.
fn from_directory(directory: &Path, file: &str, ask: bool) -> Result<Source, Failure> {
    let root = std::fs::canonicalize(directory).map_err(|error| {
        Failure::text(format!(
            "unable to prepare context: unable to evaluate symlinks in context path: lstat {}: {}",
            directory.display(),
            env::describe(&error)
        ))
    })?;
    if !root.is_dir() {
        return Err(Failure::text(format!(
            "unable to prepare context: context must be a directory: {}",
            root.display()
        )));
    }
    if file == "-" {
        let name = private_name();
        let rules = context::rules(&root, None, None).map_err(Failure::text)?;
        let extra = vec![Extra {
            name: name.clone(),
            bytes: read_dockerfile(io::stdin())?,
        }];
        return Ok(Source {
            body: Some(pack(Some(root), rules, extra)?),
            remote: String::new(),
            dockerfile: name,
        });
    }
    let path = find_dockerfile(&root, file)?;
    let inside = inside_of(&root, &path);
    let rules = context::rules(&root, Some(&path), inside.as_deref()).map_err(Failure::text)?;
    match inside {
        Some(name) if ask => Ok(Source {
            body: Some(pack(None, rules, asked(&root, &path, &name)?)?),
            remote: String::new(),
            dockerfile: name,
        }),
        Some(name) => Ok(Source {
            body: Some(pack(Some(root), rules, Vec::new())?),
            remote: String::new(),
            dockerfile: name,
        }),
        None => {
            let source = std::fs::File::open(&path).map_err(|error| {
                Failure::text(format!("open {}: {}", path.display(), env::describe(&error)))
            })?;
            let name = private_name();
            let extra = vec![Extra {
                name: name.clone(),
                bytes: read_dockerfile(source)?,
            }];
            Ok(Source {
                body: Some(pack(Some(root), rules, extra)?),
                remote: String::new(),
                dockerfile: name,
            })
        }
    }
}

/// The Dockerfile that `file` names. Without a name it is the context's; a given name is relative to the client's
/// directory, or else to the context.
pub(super) fn find_dockerfile(root: &Path, file: &str) -> Result<PathBuf, Failure> {
    let given = if file.is_empty() {
        root.join("Dockerfile")
    } else {
        PathBuf::from(file)
    };
    let given = match given.exists() || file.is_empty() || given.is_absolute() {
        true => given,
        false => root.join(file),
    };
    std::fs::canonicalize(&given).map_err(|error| {
        Failure::text(format!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: {}",
            given.display(),
            env::describe(&error)
        ))
        .hint("name the Dockerfile with -f, or the directory that holds it")
    })
}

/// The Dockerfile's name within the context, if it lies there.
pub(super) fn inside_of(root: &Path, path: &Path) -> Option<String> {
    path.strip_prefix(root)
        .ok()
        .and_then(Path::to_str)
        .map(str::to_owned)
}

/// The files that a Dockerfile is asked with.
fn asked(root: &Path, path: &Path, name: &str) -> Result<Vec<Extra>, Failure> {
    let read = |path: &Path| {
        std::fs::File::open(path)
            .map_err(|error| Failure::text(format!("open {}: {}", path.display(), env::describe(&error))))
    };
    let mut files = vec![Extra {
        name: name.to_owned(),
        bytes: read_dockerfile(read(path)?)?,
    }];
    for ignore in [format!("{name}.dockerignore"), ".dockerignore".to_owned()] {
        if let Ok(file) = std::fs::File::open(root.join(&ignore)) {
            files.push(Extra {
                name: ignore,
                bytes: read_dockerfile(file)?,
            });
        }
    }
    Ok(files)
}

/// A tar (compressed or not) is sent as it comes; anything else is a Dockerfile.
fn from_stdin(file: &str) -> Result<Source, Failure> {
    if terminal::stdin_is_terminal() {
        eprintln!("reading the build context from the terminal; end with ctrl-d");
    }
    let mut head = Vec::new();
    io::stdin()
        .take(512)
        .read_to_end(&mut head)
        .map_err(|error| Failure::text(format!("failed to peek context header from STDIN: {error}")))?;
    if is_archive(&head) {
        let body = super::archive::upload(io::Cursor::new(head).chain(io::stdin()))?;
        return Ok(Source {
            body: Some(body),
            remote: String::new(),
            dockerfile: file.to_owned(),
        });
    }
    let bytes = read_dockerfile(io::Cursor::new(head).chain(io::stdin()))?;
    let extra = vec![Extra {
        name: "Dockerfile".into(),
        bytes,
    }];
    let body = pack(None, Rules::default(), extra)?;
    Ok(Source {
        body: Some(body),
        remote: String::new(),
        dockerfile: "Dockerfile".into(),
    })
}

fn is_archive(head: &[u8]) -> bool {
    let magic: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magic.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_sources() {
        assert!(is_remote("https://h/x.git#main:dir") && is_remote("git@h:x") && !is_remote("./x"));
        assert!(is_archive(b"\x1f\x8b\x08rest") && !is_archive(b"FROM scratch\n"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
        assert_eq!(
            from_directory(dir.path(), "", false).unwrap().dockerfile,
            "Dockerfile"
        );
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("D"), "FROM scratch").unwrap();
        let source =
            from_directory(dir.path(), &other.path().join("D").display().to_string(), false).unwrap();
        assert!(source.dockerfile.starts_with(".dockerfile."));
        assert!(from_directory(other.path(), "", false).is_err());
    }
}
