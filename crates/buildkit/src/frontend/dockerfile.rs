//! `dockerfile.v0`: a build of a Dockerfile, once for each platform, told step by step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::pb::{Definition, Position, Range, SourceInfo};
use build::{BuildEvent, BuildRequest, BuiltContext, NamedContext, Narration, StepId, StepNews, Stream};
use futures_util::future::try_join_all;
use image::Guest;
use spec::Platform;
use tokio::sync::mpsc;

use super::Options;
use super::context::{Sources, ignore_of, of_url, patterns, sources};
use crate::cache;
use crate::error::Failure;
use crate::export;
use crate::job::{Job, Step};
use crate::layouts;
use crate::llb;
use crate::provenance::{self, Provenance};
use crate::result::Outcome;
use crate::sbom;
use crate::service::Service;
use crate::session::{Directory, Session, SessionClient};

/// Events that may wait to be told.
const PENDING: usize = 256;

/// Builds; one outcome for each platform, in the order they were asked for.
pub async fn solve(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    attributes: &HashMap<String, String>,
    inputs: &HashMap<String, Definition>,
) -> Result<Vec<Outcome>, Failure> {
    let options = Options::read(attributes)?;
    let attested = provenance::Wanted::read(&options.attestations)?;
    let scanned = sbom::Wanted::read(&options)?.filter(|_| export::makes_image(&job.request));
    let begun = SystemTime::now();
    let sources = sources(service, job, session, &options).await?;
    let imports = match options.no_cache {
        true => Vec::new(),
        false => cache::imports(service, job, Some(session), attributes).await?,
    };
    let cache_export = cache::export_of(&job.request)?;
    let platforms = match options.platforms.is_empty() {
        true => vec![Platform::host()],
        false => options.platforms.clone(),
    };
    let several = options.multi_platform;
    let locals = match &sources.context {
        Directory::Session { name, .. } => vec![name.clone()],
        Directory::Fetched(..) => Vec::new(),
    };
    let imports = &imports;
    let builds = platforms.into_iter().enumerate().map(async |(number, platform)| {
        let prefix = several.then(|| platform.to_string());
        let request = request(service, job, session, &options, &sources, inputs, &platform).await?;
        let request = BuildRequest {
            cache_imports: imports.clone(),
            cache_export,
            ..request
        };
        let (output, events) = mpsc::channel(PENDING);
        let build = async {
            let prepared = service.builder.prepare(request).await?;
            // The file is the same for all of them.
            if number == 0 {
                warn(job, &prepared);
            }
            let solution = service.builder.solve(prepared, output).await?;
            job.settles(&solution);
            Ok::<_, build::BuildError>(solution)
        };
        let (solution, ()) = tokio::join!(build, tell(job, events, prefix.as_deref()));
        let solution = solution?;
        let provenance = attested.as_ref().map(|attested| {
            let facts = provenance::Facts {
                reference: &job.reference,
                attributes,
                dockerfile: (&sources.name, &sources.dockerfile),
                platform: &platform,
                locals: &locals,
                images: solution.images(),
                begun,
                ended: SystemTime::now(),
            };
            Provenance::of(attested, &facts)
        });
        let bills = match &scanned {
            Some(wanted) => {
                let result = (solution.as_context()?, &platform);
                sbom::scan(service, job, session, wanted, result).await?
            }
            None => Vec::new(),
        };
        Ok::<_, Failure>(Outcome {
            platform,
            solution,
            provenance,
            bills,
        })
    });
    try_join_all(builds).await
}

/// Tells what the rules found in the Dockerfile.
fn warn(job: &Arc<Job>, prepared: &build::Prepared) {
    if prepared.findings().is_empty() {
        return;
    }
    let source = prepared.source();
    // Clients show a warning only with a step that they know.
    let step = job.begin(&format!("[internal] check {}", source.name()));
    let mut text = source.lines().join("\n");
    text.push('\n');
    for finding in prepared.findings() {
        let (rule, at) = (finding.rule, &finding.at);
        let position = |line: usize| Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        };
        let short = format!("{}: {} (line {})", rule.name, finding.detail, at.line());
        job.warn(VertexWarning {
            vertex: step.digest(),
            level: 1,
            short: short.into_bytes(),
            detail: vec![rule.description.as_bytes().to_vec()],
            url: rule.url(),
            info: Some(SourceInfo {
                filename: source.name().to_owned(),
                data: text.clone().into_bytes(),
                definition: None,
                language: "Dockerfile".to_owned(),
            }),
            ranges: vec![Range {
                start: Some(position(at.line())),
                end: Some(position(at.last_line())),
            }],
        });
    }
    step.end(None);
}

async fn request(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
    sources: &Sources,
    inputs: &HashMap<String, Definition>,
    platform: &Platform,
) -> Result<BuildRequest, Failure> {
    let contexts = contexts(service, job, session, options, inputs, platform).await?;
    let client = SessionClient {
        context: sources.context.clone(),
        named: contexts.directories,
        other_sessions: options.sessions.clone(),
        ..SessionClient::plain(service, session, job)
    };
    let here = match &sources.context {
        Directory::Fetched(path, _) => path.clone(),
        Directory::Session { .. } => Default::default(),
    };
    Ok(BuildRequest {
        dockerfile: sources.name.clone(),
        dockerfile_content: Some(sources.dockerfile.clone()),
        build_args: options.build_args.clone(),
        labels: options.labels.clone(),
        target: options.target.clone(),
        no_cache: options.no_cache,
        no_cache_stages: options.no_cache_stages.clone(),
        pull: options.pull,
        platform: Some(platform.clone()),
        network_mode: options.network_mode.clone(),
        extra_hosts: options.extra_hosts.clone(),
        hostname: options.hostname.clone(),
        shm_size: options.shm_size,
        limits: options.limits.clone(),
        tags: export::names(&job.request)?,
        squash: options.squash,
        rewrite_timestamp: export::rewrites(&job.request),
        explain: options.explain,
        allowed: job.allowed(),
        client: Some(Arc::new(client)),
        named_contexts: contexts.named,
        guests: contexts.guests,
        narration: Narration::Steps,
        stop: job.stop.child_token(),
        ..BuildRequest::new(here)
    })
}

/// What names stand for.
#[derive(Default)]
struct Contexts {
    named: BTreeMap<String, NamedContext>,
    directories: BTreeMap<String, Directory>,
    guests: Vec<Guest>,
}

async fn contexts(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
    inputs: &HashMap<String, Definition>,
    platform: &Platform,
) -> Result<Contexts, Failure> {
    let mut contexts = Contexts::default();
    for (key, value) in &options.contexts {
        let name = match key.split_once("::") {
            // Said for one platform only.
            Some((_, only)) if only.parse().ok().as_ref() != Some(platform) => continue,
            Some((name, _)) => name.to_ascii_lowercase(),
            None => key.to_ascii_lowercase(),
        };
        let (kind, rest) = value.split_once(':').unwrap_or((value, ""));
        let meaning = match kind {
            "docker-image" => NamedContext::Image(rest.trim_start_matches("//").to_owned()),
            "oci-layout" => {
                let (store, digest) = layouts::parse(rest)?;
                let step = job.begin(&format!("[context {name}] load from oci-layout"));
                let fetched = layouts::fetch(service, job, session, (&store, &digest), platform).await;
                step.end(fetched.as_ref().err().map(|failure| failure.message.clone()));
                let guest = fetched?;
                let id = guest.image.id.to_string();
                contexts.guests.push(guest);
                NamedContext::Image(id)
            }
            "local" => {
                let title = format!("[context {name}] load .dockerignore");
                let ignore = ignore_of(service, job, session, options, rest, &title).await?;
                let directory = Directory::Session {
                    name: rest.to_owned(),
                    exclude: patterns(ignore.as_deref().unwrap_or_default())?,
                    include: Vec::new(),
                    paths: None,
                };
                contexts.directories.insert(name.clone(), directory);
                NamedContext::Directory
            }
            "input" => {
                let definition = inputs.get(rest).ok_or_else(|| {
                    Failure::invalid(format!("the context {name} names no input of the build"))
                })?;
                NamedContext::Built(Box::new(built(service, job, session, definition).await?))
            }
            "http" | "https" | "git" => {
                let directory = Arc::new(service.directory("context-")?);
                let step = job.begin(&format!("[context {name}] load from {kind}"));
                let fetched = of_url(service, job, session, value, (directory.path(), false)).await;
                step.end(fetched.as_ref().err().map(|failure| failure.message.clone()));
                let fetched = fetched?;
                let directory = Directory::Fetched(fetched.directory, directory);
                contexts.directories.insert(name.clone(), directory);
                NamedContext::Directory
            }
            other => {
                return Err(Failure::unimplemented(format!(
                    "unsupported context source {other} for {name}: use an image (docker-image, oci-layout), a directory, a URL or a target"
                )));
            }
        };
        contexts.named.insert(build::context_name(&name), meaning);
    }
    Ok(contexts)
}

/// What a definition of the client stands for: a result of another build, or something to be made first. The job holds it.
async fn built(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    definition: &Definition,
) -> Result<BuiltContext, Failure> {
    let outcome = match service.result_of(definition)? {
        Some(outcome) => outcome,
        None => Arc::new(llb::solve(service, job, Some(session), definition).await?),
    };
    job.keep_shared(outcome.clone());
    Ok(outcome.solution.as_context()?)
}

/// Tells what the build says as steps of the job.
pub async fn tell(job: &Arc<Job>, mut events: mpsc::Receiver<BuildEvent>, prefix: Option<&str>) {
    let mut steps: HashMap<StepId, Step> = HashMap::new();
    while let Some(event) = events.recv().await {
        let (id, news) = match event {
            BuildEvent::Step { id, news } => (id, news),
            BuildEvent::Reference(id) => {
                job.explain(|explanation| explanation.build = id);
                continue;
            }
            BuildEvent::Explained(step) => {
                job.explain(|explanation| explanation.steps.push(step));
                continue;
            }
            _ => continue,
        };
        match news {
            StepNews::Begun { title, inputs } => {
                let title = match (prefix, title.strip_prefix('[')) {
                    (Some(prefix), Some(rest)) => format!("[{prefix} {rest}"),
                    _ => title,
                };
                let inputs: Vec<String> = inputs
                    .iter()
                    .filter_map(|input| steps.get(input))
                    .map(Step::digest)
                    .collect();
                steps.insert(id, job.begin_on(&title, &inputs));
            }
            StepNews::Output(output) => {
                let stream = match output.stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                if let Some(step) = steps.get(&id) {
                    step.output(stream, &output.bytes);
                }
            }
            StepNews::Progress(event) => {
                if let (Some(step), Some(part), Some(current)) = (steps.get(&id), &event.id, event.current) {
                    let total = event.total.unwrap_or(0);
                    step.progress(part, current, total, current == total && total > 0);
                }
            }
            StepNews::Reason(reason) => {
                if let Some(step) = steps.get(&id) {
                    step.progress(&format!("cache miss: {reason}"), 0, 0, true);
                }
            }
            StepNews::Ended { cached, failure } => {
                job.count(|counts| {
                    counts.completed += 1;
                    counts.cached += i32::from(cached);
                });
                if let Some(step) = steps.get(&id) {
                    step.end_as(cached, failure.as_ref().map(crate::error::words));
                }
            }
        }
    }
}
