//! The parameters of `POST /build`.

use std::collections::BTreeMap;

use api_types::lenient;
use build::exchange::{CacheGoal, CacheSource, CacheTarget, INLINE_ARGUMENT, Wish};
use build::{Limits, Ulimit};
use serde::de::DeserializeOwned;
use spec::{Platform, Reference};

use crate::error::{ApiError, Result};
use crate::request::{Query, platform};

/// A build as asked for, without its context.
#[derive(Debug)]
pub struct Options {
    pub dockerfile: String,
    /// Where the context is fetched from; empty: it is the request's body.
    pub remote: String,
    pub tags: Vec<Reference>,
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    pub pull: bool,
    pub platform: Option<Platform>,
    pub network_mode: String,
    pub extra_hosts: Vec<String>,
    pub shm_size: i64,
    pub limits: Limits,
    /// Only the image's ID is told.
    pub quiet: bool,
    pub squash: bool,
    pub cache_sources: Vec<CacheSource>,
    pub cache_targets: Vec<CacheTarget>,
}

/// Reads the parameters; what this builder does not do is refused here.
pub fn read(query: &Query) -> Result<Options> {
    match query.get("version") {
        "" | "1" => {}
        other => return Err(ApiError::invalid(format!("invalid version {other:?}"))),
    }
    if query.has("securityopt") {
        return Err(ApiError::invalid("security options are not supported on linux"));
    }
    if !query.get("outputs").is_empty() {
        return Err(ApiError::not_implemented(
            "the classic builder writes images only: leave out \"outputs\" and save or copy from the image",
        ));
    }
    let shm_size = match query.get("shmsize") {
        "" => 0,
        size => size
            .parse()
            .map_err(|_| ApiError::invalid(format!("strconv.ParseInt: parsing {size:?}: invalid syntax")))?,
    };
    let ulimits: Vec<api_types::Ulimit> = document(query, "ulimits", "error reading ulimit settings")?;
    let build_args: BTreeMap<String, Option<String>> =
        document(query, "buildargs", "error reading build args")?;
    Ok(Options {
        dockerfile: match query.get("dockerfile") {
            "" => "Dockerfile".to_owned(),
            path => path.to_owned(),
        },
        remote: query.get("remote").to_owned(),
        tags: tags(&query.all("t"))?,
        cache_sources: cache_sources(query)?,
        cache_targets: cache_targets(query, &build_args)?,
        build_args,
        labels: document(query, "labels", "error reading labels")?,
        target: query.text("target"),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        platform: platform::slashed(query)?,
        network_mode: query.get("networkmode").to_owned(),
        extra_hosts: extra_hosts(query),
        shm_size,
        limits: Limits {
            memory: query.integer_or_zero("memory"),
            memory_swap: query.integer_or_zero("memswap"),
            cpu_shares: query.integer_or_zero("cpushares"),
            cpu_period: query.integer_or_zero("cpuperiod"),
            cpu_quota: query.integer_or_zero("cpuquota"),
            cpuset_cpus: query.get("cpusetcpus").to_owned(),
            cpuset_mems: query.get("cpusetmems").to_owned(),
            cgroup_parent: query.get("cgroupparent").to_owned(),
            ulimits: ulimits
                .into_iter()
                .map(|limit| Ulimit {
                    name: limit.name,
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
        },
        quiet: query.flag("q"),
        squash: query.flag("squash"),
    })
}

/// Caches to take steps from: names, or types with options.
fn cache_sources(query: &Query) -> Result<Vec<CacheSource>> {
    let wishes: Vec<String> = document(query, "cachefrom", "error reading cache-from")?;
    let wishes = wishes.iter().filter(|wish| !wish.is_empty());
    let read = |text: &String| {
        let wish = Wish::parse(text).map_err(refused)?;
        match wish.kind.as_str() {
            "local" => Err(no_directory()),
            _ => CacheSource::parse(text).map_err(refused),
        }
    };
    wishes.map(read).collect()
}

/// Caches to be written.
fn cache_targets(query: &Query, build_args: &BTreeMap<String, Option<String>>) -> Result<Vec<CacheTarget>> {
    let wishes: Vec<String> = document(query, "cacheto", "error reading cache-to")?;
    let mut targets = Vec::new();
    for text in &wishes {
        let target = CacheTarget::read(&Wish::parse(text).map_err(refused)?).map_err(refused)?;
        match target.goal {
            CacheGoal::Local(_) => return Err(no_directory()),
            _ => targets.push(target),
        }
    }
    let asked = build_args.get(INLINE_ARGUMENT).and_then(Option::as_deref);
    CacheTarget::add_inline(&mut targets, asked);
    Ok(targets)
}

fn refused(error: build::BuildError) -> ApiError {
    ApiError::new(error.class(), error.to_string())
}

fn no_directory() -> ApiError {
    ApiError::not_implemented(
        "a cache in a directory of the client travels over BuildKit's protocol only: use docker buildx build, or type=registry",
    )
}

pub fn document<T: DeserializeOwned + Default>(query: &Query, name: &str, what: &str) -> Result<T> {
    match query.get(name) {
        "" => Ok(T::default()),
        text => lenient::from_str(text).map_err(|why| ApiError::invalid(format!("{what}: {why}"))),
    }
}

/// The names the image gets, each once and with a tag.
pub fn tags(names: &[String]) -> Result<Vec<Reference>> {
    let mut tags = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        let reference = Reference::parse_normalized(name)?;
        if reference.digest().is_some() {
            return Err(ApiError::invalid("build tag cannot contain a digest"));
        }
        let reference = reference.or_latest();
        if !tags.contains(&reference) {
            tags.push(reference);
        }
    }
    Ok(tags)
}

/// Given several times, or once as a comma-separated list.
fn extra_hosts(query: &Query) -> Vec<String> {
    let given = query.all("extrahosts");
    given
        .iter()
        .flat_map(|hosts| hosts.split(','))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> String {
        read(&Query::parse(query)).unwrap_err().message
    }

    #[test]
    fn everything_is_read() {
        let query = "t=a&t=b%2Fc%3A1&t=a&buildargs=%7B%22X%22%3A%22y%22%2C%22Z%22%3Anull%7D&labels=%7B%22l%22%3A%22v%22%7D\
                     &nocache=1&target=t&memory=5&ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%2C%22Hard%22%3A2%7D%5D\
                     &extrahosts=a%3A1.1.1.1%2Cb%3A2.2.2.2&q=1&dockerfile=D&shmsize=7";
        let options = read(&Query::parse(query)).unwrap();
        assert_eq!(
            options.tags.iter().map(Reference::familiar).collect::<Vec<_>>(),
            ["a:latest", "b/c:1"]
        );
        assert_eq!(options.build_args["X"], Some("y".to_owned()));
        assert_eq!(options.build_args["Z"], None);
        assert_eq!(options.labels["l"], "v");
        assert!(options.no_cache && options.quiet);
        assert_eq!((options.limits.memory, options.shm_size), (5, 7));
        assert_eq!(options.limits.ulimits[0].hard, 2);
        assert_eq!(options.extra_hosts, ["a:1.1.1.1", "b:2.2.2.2"]);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        assert_eq!(refused("version=3"), "invalid version \"3\"");
        assert!(refused("buildargs=%7B").starts_with("error reading build args: unexpected EOF"));
        assert!(refused("t=BAD").contains("must be lowercase"));
        assert!(refused("shmsize=x").contains("invalid syntax"));
    }
}
