//! COPY and ADD.
//!
//! From the context, the definition holds the digest of what is copied; it is computed while earlier steps
//! still run. From a stage or an image, the step is first looked up by how its source is made and then by the
//! content it takes from it, so that a source that was made again but came out the same changes nothing above.

use std::fs::File;
use std::io::{self, Cursor};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use spec::{Digest, Hasher};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::fresh::Fresh;
use super::place::{Ownership, Placer};
use super::scratch::{Scratch, mount};
use super::select::{Group, Rules, SelectError, literal, select};
use super::{Build, ModeChange, StepOperation, Tree, blocking, digest, now, owner, root};
use crate::archive;
use crate::error::BuildError;
use crate::history::Part;
use crate::pattern::{Ignore, clean};
use crate::recipe::Web;
use crate::remote::{Access, Checkout, Fetched, Ssh, checkout, fetch};

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    Context,
    /// A directory of the client that has a name of its own.
    Named(String),
    /// The second input.
    Tree,
}

/// A COPY or ADD with everything expanded.
pub struct CopyStep {
    /// `COPY` or `ADD`, for messages.
    pub keyword: &'static str,
    pub from: FileSource,
    pub sources: Vec<String>,
    /// ADD: what is fetched.
    pub remote: Vec<String>,
    /// ADD: git repositories.
    pub git: Vec<String>,
    pub keep_git_dir: Option<bool>,
    /// What they say about servers over ssh.
    pub ssh: Ssh,
    /// ADD: how the name of the commit has to begin.
    pub commit: Option<String>,
    /// Name and content of heredocs.
    pub inline: Vec<(String, String)>,
    /// Absolute; ends with a slash where it must be a directory.
    pub destination: String,
    pub chown: Option<String>,
    pub chmod: Option<(String, ModeChange)>,
    pub exclude: Vec<String>,
    pub parents: bool,
    pub checksum: Option<Digest>,
    /// Whether local archives are unpacked, and whether fetched ones are.
    pub unpack: (bool, bool),
    /// A directory takes the place of a link of its name instead of going where the link leads.
    pub over_links: bool,
    /// What was fetched for the definition is kept for the run.
    pub fetched: OnceCell<Arc<Vec<Fetched>>>,
    pub cloned: OnceCell<Arc<Vec<Checkout>>>,
}

impl FileSource {
    /// The directory on this machine, for what comes from the client.
    async fn directory(&self, build: &Build) -> Result<Option<PathBuf>, BuildError> {
        match (self, &build.request.client) {
            (FileSource::Tree, _) => Ok(None),
            (FileSource::Context, _) => build.context().await.map(Some),
            (FileSource::Named(name), Some(client)) => client.named(name).await.map(Some),
            (FileSource::Named(name), None) => Err(BuildError::invalid(format!(
                "the context {name} is a directory of the client, which sends none"
            ))),
        }
    }
}

/// What the blocking parts need.
struct Plan {
    keyword: &'static str,
    from: FileSource,
    sources: Vec<String>,
    exclude: Vec<String>,
    parents: bool,
}

impl Plan {
    fn of_context(paths: Vec<String>) -> Plan {
        Plan {
            keyword: "RUN",
            from: FileSource::Context,
            sources: paths,
            exclude: Vec::new(),
            parents: false,
        }
    }

    fn select(&self, build: &Build, root: &OwnedFd) -> Result<Vec<Group>, BuildError> {
        let fail = |error: SelectError| BuildError::invalid(format!("{} failed: {error}", self.keyword));
        let exclude =
            Ignore::excluding(self.exclude.iter().map(String::as_str)).map_err(|error| fail(error.into()))?;
        let rules = Rules {
            ignore: (self.from == FileSource::Context).then_some(&build.ignore),
            exclude: &exclude,
            parents: self.parents,
        };
        select(root.as_fd(), &self.sources, &rules).map_err(fail)
    }

    /// The root of the files: the context, or the tree of the second input. Nothing for an empty image.
    fn open(
        &self,
        build: &Build,
        directory: Option<&Path>,
        tree: Option<&Tree>,
    ) -> Result<Option<OwnedFd>, BuildError> {
        match &self.from {
            FileSource::Context | FileSource::Named(_) => directory.map(open_dir).transpose(),
            FileSource::Tree => match tree.and_then(|tree| tree.snapshot) {
                Some(snapshot) => mount(&build.store, snapshot).map(Some),
                None => Ok(None),
            },
        }
    }
}

/// Opens a directory of the host to look beneath it.
fn open_dir(path: &Path) -> Result<OwnedFd, BuildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        BuildError::io(
            format_args!("opening the build context {}", path.display()),
            &error.into(),
        )
    })
}

impl CopyStep {
    /// Everything in the client's directory `name`.
    pub fn all_of(name: &str) -> CopyStep {
        CopyStep {
            keyword: "context",
            ..CopyStep::everything(FileSource::Named(name.to_ascii_lowercase()))
        }
    }

    /// A file of a web server, as the only one.
    pub fn web(web: &Web) -> Result<CopyStep, BuildError> {
        let mode = format!("{:04o}", web.mode & 0o7777);
        let change = ModeChange::parse(&mode).map_err(BuildError::invalid)?;
        Ok(CopyStep {
            keyword: "http",
            sources: Vec::new(),
            remote: vec![web.url.clone()],
            destination: format!("/{}", web.name),
            chown: Some(format!("{}:{}", web.owner.0, web.owner.1)),
            chmod: Some((mode, change)),
            checksum: web.checksum.clone(),
            ..CopyStep::everything(FileSource::Context)
        })
    }

    /// A git repository.
    pub fn repository(source: &str, keep_git_dir: bool, ssh: &Ssh) -> CopyStep {
        CopyStep {
            keyword: "git",
            sources: Vec::new(),
            git: vec![source.to_owned()],
            keep_git_dir: Some(keep_git_dir),
            ssh: ssh.clone(),
            ..CopyStep::everything(FileSource::Context)
        }
    }

    fn everything(from: FileSource) -> CopyStep {
        CopyStep {
            keyword: "COPY",
            from,
            sources: vec!["/".to_owned()],
            remote: Vec::new(),
            git: Vec::new(),
            keep_git_dir: None,
            ssh: Ssh::default(),
            commit: None,
            inline: Vec::new(),
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            parents: false,
            checksum: None,
            unpack: (false, false),
            over_links: false,
            fetched: OnceCell::new(),
            cloned: OnceCell::new(),
        }
    }

    /// The second input laid over the first.
    pub fn overlay() -> CopyStep {
        CopyStep {
            over_links: true,
            ..CopyStep::everything(FileSource::Tree)
        }
    }

    fn plan(&self) -> Plan {
        Plan {
            keyword: self.keyword,
            from: self.from.clone(),
            sources: self.sources.clone(),
            exclude: self.exclude.clone(),
            parents: self.parents,
        }
    }

    /// A digest of everything but the files of another tree.
    pub async fn definition(&self, build: &Arc<Build>) -> Result<Digest, BuildError> {
        let mut hasher = Hasher::new();
        let mut field = |text: &str| {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        };
        field("copy 1");
        field(&self.destination);
        field(self.chown.as_deref().unwrap_or("-"));
        field(self.chmod.as_ref().map_or("-", |(text, _)| text));
        field(&format!("{:?} {:?}", self.unpack, self.keyword));
        for (name, content) in &self.inline {
            field(name);
            field(content);
        }
        match &self.from {
            FileSource::Context | FileSource::Named(_) => {
                let several = self.sources.len();
                let directory = match several {
                    0 => None,
                    _ => self.from.directory(build).await?,
                };
                let (plan, build) = (self.plan(), build.clone());
                let content = blocking(move || match plan.open(&build, directory.as_deref(), None)? {
                    Some(root) if several > 0 => plan_digest(&plan, &build, &root).map(Some),
                    _ => Ok(None),
                })
                .await?;
                field(content.as_ref().map_or("-", Digest::as_str));
                let many = self.sources.len() + self.inline.len() + self.remote.len() + self.git.len() > 1;
                field(if many { "many" } else { "one" });
            }
            FileSource::Tree => {
                let how = (self.parents, self.over_links);
                field(&format!("{:?} {:?} {how:?}", self.sources, self.exclude));
            }
        }
        for checkout in self.clone_all(build, &build.request.stop).await?.iter() {
            field("git");
            field(&checkout.commit);
            field(&checkout.subdirectory);
            field(if checkout.keeps_history {
                "history"
            } else {
                "files"
            });
        }
        match &self.checksum {
            // With a digest that is promised, nothing has to be fetched to know the result.
            Some(checksum) => self
                .remote
                .iter()
                .for_each(|url| field(&format!("{url} {checksum}"))),
            None => {
                for fetched in self.fetch(build, &build.request.stop).await?.iter() {
                    field(fetched.name.as_deref().unwrap_or_default());
                    field(fetched.digest.as_str());
                }
            }
        }
        Ok(hasher.finish())
    }

    async fn fetch(&self, build: &Build, stop: &CancellationToken) -> Result<Arc<Vec<Fetched>>, BuildError> {
        let fetched = self.fetched.get_or_try_init(|| async {
            let mut all = Vec::new();
            for url in &self.remote {
                let fetched = fetch(url, self.checksum.as_ref(), build.store.root(), stop).await;
                let fetched = fetched.map_err(|error| error.context("ADD failed"))?;
                if fetched.name.is_none() {
                    let text = format!("cannot determine filename for source {url}");
                    return Err(BuildError::invalid(text));
                }
                all.push(fetched);
            }
            Ok::<_, BuildError>(Arc::new(all))
        });
        fetched.await.cloned()
    }

    async fn clone_all(
        &self,
        build: &Build,
        stop: &CancellationToken,
    ) -> Result<Arc<Vec<Checkout>>, BuildError> {
        let cloned = self.cloned.get_or_try_init(|| async {
            let mut all = Vec::new();
            for source in &self.git {
                let root = build.store.root();
                let access = match &build.request.client {
                    Some(client) => Some(Access::of(&**client, source, &self.ssh, root).await?),
                    None => None,
                };
                let checkout = checkout(source, self.keep_git_dir, root, access.as_ref(), stop);
                let checkout = checkout.await.map_err(|error| error.context("ADD failed"))?;
                if let Some(wanted) = &self.commit
                    && !checkout.commit.starts_with(wanted.as_str())
                {
                    return Err(BuildError::invalid(format!(
                        "ADD failed: {source} is commit {}, and {wanted} was promised",
                        checkout.commit
                    )));
                }
                all.push(checkout);
            }
            Ok::<_, BuildError>(Arc::new(all))
        });
        cloned.await.cloned()
    }

    /// What the result depends on, by name.
    pub async fn parts(&self, build: &Arc<Build>, inputs: &[Tree]) -> Result<Vec<Part>, BuildError> {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut parts = vec![
            named("sources", &self.sources.join(" ")),
            named("destination", &self.destination),
            named("--chown", self.chown.as_deref().unwrap_or_default()),
            named("--chmod", self.chmod.as_ref().map_or("", |(text, _)| text)),
            named("--exclude", &self.exclude.join(" ")),
        ];
        for (name, content) in &self.inline {
            let digest = Digest::sha256(content.as_bytes());
            parts.push((format!("file <<{name}"), digest.to_string()));
        }
        for fetched in self.fetch(build, &build.request.stop).await?.iter() {
            let name = fetched.name.as_deref().unwrap_or_default();
            parts.push((format!("file {name}"), fetched.digest.to_string()));
        }
        for checkout in self.clone_all(build, &build.request.stop).await?.iter() {
            parts.push(named("commit", &checkout.commit));
        }
        if self.sources.is_empty() {
            return Ok(parts);
        }
        let directory = self.from.directory(build).await?;
        let (plan, build, tree) = (self.plan(), build.clone(), inputs.get(1).cloned());
        let files = blocking(
            move || match plan.open(&build, directory.as_deref(), tree.as_ref())? {
                Some(root) => plan_parts(&plan, &build, &root),
                None => Ok(Vec::new()),
            },
        );
        parts.extend(files.await?);
        Ok(parts)
    }

    /// The digest of what is taken from the second input.
    pub async fn contents(
        &self,
        build: &Arc<Build>,
        inputs: &[Tree],
    ) -> Result<Option<Vec<Option<Digest>>>, BuildError> {
        let Some(tree) = inputs.get(1).filter(|_| self.from == FileSource::Tree).cloned() else {
            return Ok(None);
        };
        let (plan, build) = (self.plan(), build.clone());
        let content = blocking(move || match plan.open(&build, None, Some(&tree))? {
            Some(root) => plan_digest(&plan, &build, &root).map(Some),
            None => Ok(None),
        })
        .await?;
        Ok(content.map(|content| vec![None, Some(content)]))
    }

    pub async fn run(
        &self,
        step: &StepOperation,
        inputs: &[Tree],
        stop: &CancellationToken,
    ) -> Result<Tree, BuildError> {
        let parent = inputs.first().and_then(|tree| tree.snapshot);
        let fetched = self.fetch(&step.build, stop).await?;
        let directory = match self.sources.is_empty() {
            true => None,
            false => self.from.directory(&step.build).await?,
        };
        let cloned = self.clone_all(&step.build, stop).await?;
        let work = Work {
            directory,
            plan: self.plan(),
            build: step.build.clone(),
            source: inputs.get(1).cloned(),
            destination: self.destination.clone(),
            chown: self.chown.clone(),
            chmod: self.chmod.as_ref().map(|(_, change)| change.clone()),
            inline: self.inline.clone(),
            unpack: self.unpack,
            over_links: self.over_links,
            fetched,
            cloned,
            stop: stop.clone(),
        };
        blocking(move || {
            let scratch = Scratch::create(&work.build.store, parent, &work.build.id)?;
            let tree = scratch.mount()?;
            let later = work.fill(&tree)?;
            drop(tree);
            if let Some((fresh, from)) = later {
                work.fill_fresh(fresh, &from, &scratch.directory()?)?;
            }
            let snapshot = scratch.commit(|id| work.build.cache.hold(id))?;
            Ok(Tree {
                snapshot: Some(snapshot),
                layer: true,
                created: now(),
            })
        })
        .await
    }
}

/// The digests of the files at `paths` of the context, by name.
pub async fn context_parts(build: &Arc<Build>, paths: Vec<String>) -> Result<Vec<Part>, BuildError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let directory = Some(build.context().await?);
    let (plan, build) = (Plan::of_context(paths), build.clone());
    blocking(move || match plan.open(&build, directory.as_deref(), None)? {
        Some(root) => plan_parts(&plan, &build, &root),
        None => Ok(Vec::new()),
    })
    .await
}

fn plan_parts(plan: &Plan, build: &Build, root: &OwnedFd) -> Result<Vec<Part>, BuildError> {
    let groups = plan.select(build, root)?;
    let keep_owner = plan.from == FileSource::Tree;
    digest::by_name(root.as_fd(), &groups, keep_owner, &build.file_digests)
        .map_err(|error| BuildError::io(format_args!("{} failed: reading", plan.keyword), &error))
}

/// The digest of what lies at `paths` of the context; `None` for no paths.
pub async fn context_digest(build: &Arc<Build>, paths: Vec<String>) -> Result<Option<Digest>, BuildError> {
    if paths.is_empty() {
        return Ok(None);
    }
    let plan = Plan::of_context(paths);
    let directory = Some(build.context().await?);
    let build = build.clone();
    blocking(move || match plan.open(&build, directory.as_deref(), None)? {
        Some(root) => plan_digest(&plan, &build, &root).map(Some),
        None => Ok(None),
    })
    .await
}

fn plan_digest(plan: &Plan, build: &Build, root: &OwnedFd) -> Result<Digest, BuildError> {
    let groups = plan.select(build, root)?;
    let keep_owner = plan.from == FileSource::Tree;
    digest::digest(root.as_fd(), &groups, keep_owner, &build.file_digests)
        .map_err(|error| BuildError::io(format_args!("{} failed: reading", plan.keyword), &error))
}

/// The digest of what lies at `paths` of a tree, themselves included; `None` for what came with an image, whose content is
/// known by its name, and where nothing lies.
pub async fn tree_digest(
    build: &Arc<Build>,
    tree: &Tree,
    paths: Vec<String>,
) -> Result<Option<Digest>, BuildError> {
    let Some(snapshot) = tree.snapshot else {
        return Ok(None);
    };
    let paths: Vec<String> = paths.iter().map(|path| clean(path)).collect();
    let plan = Plan {
        from: FileSource::Tree,
        ..Plan::of_context(paths.iter().map(|path| literal(path)).collect())
    };
    let (build, tree) = (build.clone(), tree.clone());
    blocking(move || {
        if build.store.snapshots().get(snapshot)?.chain.is_some() {
            return Ok(None);
        }
        let Some(opened) = plan.open(&build, None, Some(&tree))? else {
            return Ok(None);
        };
        let fail = |error: io::Error| BuildError::io("RUN failed: reading what it mounts", &error);
        let mut places = String::new();
        for path in &paths {
            match root::stat_in(opened.as_fd(), Path::new(path)).map_err(fail)? {
                Some(stat) => {
                    places.push_str(&format!(" {:o}:{}:{}", stat.st_mode, stat.st_uid, stat.st_gid));
                }
                None => return Ok(None),
            }
        }
        let content = plan_digest(&plan, &build, &opened)?;
        Ok(Some(Digest::sha256(format!("{content}{places}").as_bytes())))
    })
    .await
}

/// One copy under way.
struct Work {
    plan: Plan,
    build: Arc<Build>,
    directory: Option<PathBuf>,
    source: Option<Tree>,
    destination: String,
    chown: Option<String>,
    chmod: Option<ModeChange>,
    inline: Vec<(String, String)>,
    unpack: (bool, bool),
    over_links: bool,
    fetched: Arc<Vec<Fetched>>,
    cloned: Arc<Vec<Checkout>>,
    stop: CancellationToken,
}

impl Work {
    /// Copies everything but files that are to be put into directories made here when the tree is mounted no more, and where
    /// those come from.
    fn fill(&self, tree: &OwnedFd) -> Result<Option<(Fresh, OwnedFd)>, BuildError> {
        let keyword = self.plan.keyword;
        let io = |error: io::Error| BuildError::io(format_args!("{keyword} failed"), &error);
        let ownership = match (&self.chown, &self.plan.from) {
            (Some(chown), _) => {
                let (uid, gid) = owner::lookup(tree.as_fd(), chown)?;
                Ownership::Give(uid, gid)
            }
            // As Docker: files of the context belong to root, files of an image stay whose they are.
            (None, FileSource::Context | FileSource::Named(_)) => Ownership::Give(0, 0),
            (None, FileSource::Tree) => Ownership::Keep,
        };
        let from = match self.plan.sources.is_empty() {
            true => None,
            false => self
                .plan
                .open(&self.build, self.directory.as_deref(), self.source.as_ref())?,
        };
        let groups = match &from {
            Some(root) => self.plan.select(&self.build, root)?,
            None if self.plan.sources.is_empty() => Vec::new(),
            None => {
                return Err(BuildError::invalid(format!(
                    "{keyword} failed: the source image is empty"
                )));
            }
        };
        let others = self.inline.len() + self.fetched.len() + self.cloned.len();
        let must_be_dir = self.destination.ends_with('/');
        let no_dir = || {
            BuildError::invalid(format!(
                "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            ))
        };
        if self.plan.sources.len() + others > 1 && !must_be_dir {
            return Err(no_dir());
        }
        let base = root::clean(Path::new(&self.destination));
        let is_dir = must_be_dir
            || root::stat_in(tree.as_fd(), &base)
                .map_err(io)?
                .is_some_and(|stat| root::is_dir(&stat));
        let place_of = |name: &Path| -> PathBuf { if is_dir { base.join(name) } else { base.clone() } };
        let mut placer = Placer::new(tree.as_fd(), ownership, self.chmod.as_ref());
        placer.over_links = self.over_links;
        if groups.len() == 1 && others == 0 && !self.over_links {
            placer = placer.with_fresh();
        }
        if self.plan.parents {
            // Also when nothing lies in it then.
            root::make_dirs(tree.as_fd(), &base, placer.way_owner()).map_err(io)?;
        }
        for group in &groups {
            if self.stop.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let Some(from) = &from else { continue };
            let file = group.items.first().filter(|_| !group.directory);
            if let (true, Some(item)) = (self.unpack.0, file)
                && self.try_unpack(open_file(from, &item.source).map_err(io)?, tree, &base, ownership)?
            {
                continue;
            }
            match group.directory {
                true => placer.put(from.as_fd(), group, &base).map_err(io)?,
                false if groups.len() > 1 && !is_dir => return Err(no_dir()),
                false => placer
                    .put(from.as_fd(), group, &place_of(&group.name))
                    .map_err(io)?,
            }
        }
        for checkout in self.cloned.iter() {
            let (root, group) = checkout_group(checkout)?;
            placer.put(root.as_fd(), &group, &base).map_err(io)?;
        }
        for (name, content) in &self.inline {
            let target = place_of(Path::new(name));
            placer
                .put_bytes(&mut Cursor::new(content), 0o644, 0, &target)
                .map_err(io)?;
        }
        for fetched in self.fetched.iter() {
            let file = || fetched.open().map_err(io);
            if self.unpack.1 && self.try_unpack(file()?, tree, &base, ownership)? {
                continue;
            }
            let target = place_of(Path::new(fetched.name.as_deref().unwrap_or_default()));
            placer
                .put_bytes(&mut file()?, 0o600, fetched.modified, &target)
                .map_err(io)?;
        }
        let fresh = placer.finish_fresh().map_err(io)?;
        Ok(fresh.zip(from))
    }

    /// Puts the files that wait for directories made here.
    fn fill_fresh(&self, fresh: Fresh, from: &OwnedFd, into: &OwnedFd) -> Result<(), BuildError> {
        let filled = fresh.fill(from.as_fd(), into.as_fd(), &self.build.file_digests, &self.stop);
        filled.map_err(|error| BuildError::io(format_args!("{} failed", self.plan.keyword), &error))?;
        match self.stop.is_cancelled() {
            true => Err(BuildError::Cancelled),
            false => Ok(()),
        }
    }

    /// Unpacks `file` into the directory `base` if it is an archive.
    fn try_unpack(
        &self,
        file: File,
        tree: &OwnedFd,
        base: &Path,
        ownership: Ownership,
    ) -> Result<bool, BuildError> {
        let keyword = self.plan.keyword;
        let io = |error: io::Error| BuildError::io(format_args!("{keyword} failed: unpacking"), &error);
        if !archive::is_archive(&file).map_err(io)? {
            return Ok(false);
        }
        let owner = match (&self.chown, ownership) {
            (Some(_), Ownership::Give(uid, gid)) => Some((uid, gid)),
            _ => None,
        };
        root::make_dirs(tree.as_fd(), base, owner).map_err(io)?;
        archive::unpack(file, tree.as_fd(), base, owner, keyword)?;
        Ok(true)
    }
}

/// Everything in a checkout.
fn checkout_group(checkout: &Checkout) -> Result<(OwnedFd, Group), BuildError> {
    let root = open_dir(checkout.directory())?;
    let rules = Rules {
        ignore: None,
        exclude: &Ignore::default(),
        parents: false,
    };
    let groups = select(root.as_fd(), &["/".to_owned()], &rules)
        .map_err(|error| BuildError::invalid(format!("ADD failed: {error}")))?;
    match groups.into_iter().next() {
        Some(group) => Ok((root, group)),
        None => Err(BuildError::invalid("ADD failed: the repository is empty")),
    }
}

fn open_file(root: &OwnedFd, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(sys::beneath::open_beneath_no_links(
        root.as_fd(),
        path,
        flags,
        Mode::empty(),
    )?))
}
