//! One build: a connection on which we lend, one on which we ask, and what is told shown meanwhile.

use super::attributes::{Call, LINT, attributes, call};
use super::caches::Caches;
use super::context::Source;
use super::keys::KeyAgent;
use super::outputs::{Exporter, Outputs};
use super::{explain, lent, told};
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::format::printable;
use crate::grammar::secrets;
use crate::progress::build::{Mode, Screen};
use crate::session::{Session, print, say};
use crate::terminal::signals::Caught;
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, Exporter as Wanted, SolveRequest, StatusResponse,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use session::content::EXPORT_STORE;
use session::control::{Control, ControlError, DOCKERFILE};
use session::enclosed::Enclosed;
use session::lend::{Lent, Opening, PROTOCOL, Store};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How often a terminal is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// How long what is told, and what is lent, may outlast the build.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What is asked of the engine, and what is lent for it.
struct Build {
    request: SolveRequest,
    enclosed: Option<Enclosed>,
    lent: Lent,
    /// What directories are known by from one build to the next.
    key: String,
    outputs: Outputs,
    caches: Caches,
    names: Vec<spec::Reference>,
    /// Held as long as the build.
    _source: Source,
    _keys: Vec<KeyAgent>,
}

fn prepare(session: &Session, matches: &Matches, mode: Mode) -> Result<Build, Failure> {
    let names = told::names(matches.list("tag"))?;
    if matches.bool("push") && names.is_empty() && matches.list("output").is_empty() {
        return Err(Failure::text("tag is needed when pushing to registry").hint("name the image with -t"));
    }
    let mut source = Source::of(matches.arg(0), matches.text("file").unwrap_or_default())?;
    let enclosed = source.enclosed();
    let mut all = attributes(matches)?;
    all.extend(std::mem::take(&mut source.attributes));
    if matches.bool("explain") || mode == Mode::Tty {
        all.insert("explain".to_owned(), "1".to_owned());
    }
    let outputs = Outputs::of(matches, &names)?;
    let caches = Caches::of(matches.list("cache-from"), matches.list("cache-to"))?;
    let mut lent = Lent {
        directories: std::mem::take(&mut source.directories),
        secrets: secrets::secrets(matches.list("secret")).map_err(Failure::text)?,
        logins: Some(lent::logins(&session.globals.config)),
        outputs: outputs.lent.clone(),
        stores: caches.stores.clone(),
        ..Lent::default()
    };
    lent.uploads.extend(source.upload.take());
    if let Some(layout) = &outputs.layout {
        let (place, writable) = (layout.place.clone(), true);
        lent.stores
            .insert(EXPORT_STORE.to_owned(), Store { place, writable });
    }
    for text in matches.list("build-context") {
        lent::named_context(text, &mut lent, &mut all)?;
    }
    let mut keys = Vec::new();
    for text in matches.list("ssh") {
        keys.extend(lent::agent(text, &mut lent)?);
    }
    let exporter = |exporter: &Exporter| Wanted {
        r#type: exporter.kind.clone(),
        attrs: exporter.attributes.clone(),
    };
    let request = SolveRequest {
        r#ref: spec::Id::random().to_string(),
        session: spec::Id::random().to_string(),
        frontend: DOCKERFILE.to_owned(),
        frontend_attrs: all,
        entitlements: entitlements(matches)?,
        exporters: outputs.exporters.iter().map(exporter).collect(),
        cache: Some(CacheOptions {
            imports: caches.imports.clone(),
            exports: caches.exports.clone(),
            ..CacheOptions::default()
        }),
        ..SolveRequest::default()
    };
    Ok(Build {
        key: key(&source.key),
        request,
        enclosed,
        lent,
        outputs,
        caches,
        names,
        _source: source,
        _keys: keys,
    })
}

/// This user's directory on this machine; nobody else's that the engine knows.
fn key(directory: &str) -> String {
    let host = rustix::system::uname();
    let user = rustix::process::geteuid().as_raw();
    let whole = format!("{}\0{user}\0{directory}", host.nodename().to_string_lossy());
    spec::Digest::sha256(whole.as_bytes()).hex().to_owned()
}

fn entitlements(matches: &Matches) -> Result<Vec<String>, Failure> {
    for name in matches.list("allow") {
        if !matches!(name.as_str(), "security.insecure" | "network.host") {
            return Err(Failure::text(format!(
                "invalid entitlement {name:?}: use security.insecure or network.host"
            )));
        }
    }
    Ok(matches.list("allow").to_vec())
}

/// The session in which we lend, as long as the build takes.
struct Lending {
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Lending {
    fn on(connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, lent: Lent) -> Lending {
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            // A session that breaks is told by the build that needs it.
            let _ = lent.serve(connection, stopped).await;
        });
        Lending { stop, served }
    }

    /// Lends no more, and waits until nothing half written is left. Who writes to somebody that does not read is not waited for.
    async fn end(self) {
        drop(self.stop);
        let _ = tokio::time::timeout(LAST_WORDS, self.served).await;
    }
}

/// Opens both connections.
async fn connect(
    session: &Session,
    lent: Lent,
    opening: &Opening,
    lending: &mut Option<Lending>,
) -> Result<Control, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in opening.headers() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let client = &session.client;
    let (connection, asking) = tokio::try_join!(
        client.take_over("/session", headers, PROTOCOL),
        client.take_over("/grpc", HeaderMap::new(), PROTOCOL),
    )?;
    *lending = Some(Lending::on(connection, lent));
    Control::on(asking).await.map_err(|error| failure(&error))
}

fn failure(error: &ControlError) -> Failure {
    match error.told() {
        Some(told) => {
            Failure::text(printable(&told.text)).with_code(told.code.filter(|code| *code != 0).unwrap_or(1))
        }
        None => Failure::text(printable(&error.to_string())),
    }
}

pub async fn run(session: &Session, matches: &Matches) -> Outcome {
    let quiet = matches.bool("quiet");
    let call = call(matches)?;
    let mode = match (quiet || call.is_some(), matches.text_or_default("progress")) {
        (true, _) => Mode::Quiet,
        (false, text) => Mode::of(text).map_err(Failure::text)?,
    };
    let build = prepare(session, matches, mode)?;
    // From here on there is something to put away.
    let mut signals = Caught::ending();
    let mut lending = None;
    let outcome = tokio::select! {
        outcome = solve(session, matches, build, (mode, call), &mut lending) => outcome,
        name = signals.next() => {
            let code = if name == "TERM" { 143 } else { 130 };
            Err(Failure::text("the build was interrupted").with_code(code))
        }
    };
    if let Some(lending) = lending {
        tokio::select! {
            () = lending.end() => {}
            _ = signals.next() => {}
        }
    }
    outcome
}

/// Has the engine build, or answer a question about the Dockerfile.
async fn solve(
    session: &Session,
    matches: &Matches,
    mut build: Build,
    (mode, call): (Mode, Option<Call>),
    lending: &mut Option<Lending>,
) -> Outcome {
    let opening = Opening {
        id: build.request.session.clone(),
        shared_key: build.key.clone(),
    };
    let control = connect(session, std::mem::take(&mut build.lent), &opening, lending).await?;
    if let Some(call) = call {
        let mut request = build.request;
        request
            .frontend_attrs
            .insert("requestid".to_owned(), call.id.to_owned());
        let answer = control.ask(request).await.map_err(|error| failure(&error))?;
        let key = if call.json { "result.json" } else { "result.txt" };
        let text =
            |key: &str| String::from_utf8_lossy(answer.get(key).map_or(&[][..], Vec::as_slice)).into_owned();
        // The document escapes what it must itself.
        let mut shown = match call.json {
            true => text(key),
            false => printable(&text(key)),
        };
        if !shown.is_empty() && !shown.ends_with('\n') {
            shown.push('\n');
        }
        if call.id == LINT && !call.json {
            shown.push_str(&verdict(&text("result.json")));
        }
        print(&shown)?;
        return Ok(text("result.statuscode").parse().unwrap_or(0));
    }
    let mut screen = Screen::new(mode);
    let asked = (build.request.clone(), build.enclosed.as_ref());
    let solved = watch(&control, asked, &mut screen).await;
    let said = match solved {
        Ok(said) => said,
        Err(error) => {
            screen.fail();
            return Err(failure(&error));
        }
    };
    screen.finish();
    finish(matches, &build, &said)
}

/// How many findings there are, in the words of docker's client.
fn verdict(document: &str) -> String {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    let warnings = document
        .get("warnings")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let error = document.get("buildError").is_some_and(|error| !error.is_null());
    match warnings + usize::from(error) {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        found => format!("Check complete, {found} warnings have been found!\n"),
    }
}

/// Builds, and shows what is told about it.
async fn watch(
    control: &Control,
    (request, enclosed): (SolveRequest, Option<&Enclosed>),
    screen: &mut Screen,
) -> Result<HashMap<String, String>, ControlError> {
    let build = request.r#ref.clone();
    let (sender, mut news) = mpsc::unbounded_channel::<StatusResponse>();
    let follower = control.clone();
    let following = tokio::spawn(async move {
        let mut hand_on = |status| {
            let _ = sender.send(status);
        };
        // What is not told is not shown; how the build ends is told anyway.
        let _ = follower.follow(&build, &mut hand_on).await;
    });
    let mut ticks = tokio::time::interval(FRAME);
    let solving = control.solve(request, enclosed);
    tokio::pin!(solving);
    let solved = loop {
        tokio::select! {
            solved = &mut solving => break solved,
            Some(status) = news.recv() => screen.take(&status),
            _ = ticks.tick() => screen.draw(),
        }
    };
    let rest = async {
        while let Some(status) = news.recv().await {
            screen.take(&status);
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    following.abort();
    solved
}

/// Writes down what came of the build, where that is asked for.
fn finish(matches: &Matches, build: &Build, said: &HashMap<String, String>) -> Outcome {
    let digest = said
        .get("containerimage.digest")
        .map(String::as_str)
        .unwrap_or_default();
    if matches.bool("quiet") && !build.outputs.takes_stdout() && !digest.is_empty() {
        say(&printable(digest))?;
    }
    if matches.bool("explain") {
        let lines = explain::Explanations::of(said).lines();
        for line in lines.iter().map(|line| printable(line)) {
            match build.outputs.takes_stdout() {
                true => eprintln!("{line}"),
                false => say(&line)?,
            }
        }
    }
    for written in &build.caches.written {
        written.note(said)?;
    }
    if let Some(layout) = &build.outputs.layout {
        let names: Vec<String> = build
            .names
            .iter()
            .map(|name| name.tag().unwrap_or("latest").to_owned())
            .collect();
        let names = if names.is_empty() {
            vec!["latest".to_owned()]
        } else {
            names
        };
        let descriptor = told::descriptor(said, layout.number)?;
        super::caches::note(&layout.place, &descriptor, &names)?;
    }
    if let Some(path) = matches.text("iidfile") {
        if digest.is_empty() {
            return Err(Failure::text(format!(
                "server did not provide an image ID. Cannot write {path}"
            )));
        }
        std::fs::write(path, digest)
            .map_err(|error| Failure::text(format!("cannot write {path}: {error}")))?;
    }
    if let Some(path) = matches.text("metadata-file") {
        told::write_metadata(path, said)?;
    }
    Ok(0)
}
