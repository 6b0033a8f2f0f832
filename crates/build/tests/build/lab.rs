//! A store, a base image and a builder in a temporary directory.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use build::{Agent, BuildError, BuildEvent, BuildRequest, Builder, Client, Patience};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use image::{Auth, Image, Images, ImportOptions};
use rustix::fs::{Mode, OFlags, Stat};
use spec::Reference;
use spec::image::ContainerSettings;
use store::Store;
use tokio::sync::mpsc;

use crate::executor::Chroot;

pub struct Lab {
    pub builder: Builder,
    pub images: Images,
    pub store: Store,
    pub executor: Arc<Chroot>,
    pub context: PathBuf,
    _dir: tempfile::TempDir,
}

/// What a build gave and said.
pub struct Built {
    pub result: Result<Image, BuildError>,
    pub text: String,
    pub runs: usize,
}

impl Built {
    pub fn image(&self) -> &Image {
        self.result
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}\n{}", self.text))
    }

    pub fn error(&self) -> &BuildError {
        self.result
            .as_ref()
            .err()
            .unwrap_or_else(|| panic!("it was built:\n{}", self.text))
    }
}

#[derive(Debug)]
struct Lender {
    context: PathBuf,
    id: String,
    secret: Vec<u8>,
}

impl Client for Lender {
    fn context(&self, _: Option<Vec<String>>) -> BoxFuture<'_, Result<PathBuf, BuildError>> {
        ready(Ok(self.context.clone())).boxed()
    }

    fn named(&self, name: &str) -> BoxFuture<'_, Result<PathBuf, BuildError>> {
        panic!("no build of these tests has a context called {name}")
    }

    fn secret(&self, id: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, BuildError>> {
        ready(Ok((id == self.id).then(|| self.secret.clone()))).boxed()
    }

    fn agent(&self, _: &str, _: &Arc<Patience>) -> BoxFuture<'_, Result<Option<Box<dyn Agent>>, BuildError>> {
        ready(Ok(None)).boxed()
    }

    fn login(&self, _: &str) -> BoxFuture<'_, Option<Auth>> {
        ready(None).boxed()
    }
}

/// A tar of a root filesystem with busybox.
fn base() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1);
        match link {
            "" => tar.append_data(&mut header, path, content).unwrap(),
            link => tar.append_link(&mut header, path, link).unwrap(),
        }
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    for dir in ["bin", "etc", "usr", "usr/lib", "tmp"] {
        add(dir, Directory, 0o755, "", b"");
    }
    add(
        "bin/busybox",
        Regular,
        0o755,
        "",
        &std::fs::read("/bin/busybox").unwrap(),
    );
    for name in [
        "sh", "cat", "echo", "ls", "mkdir", "touch", "sleep", "rm", "test", "stat", "cp", "tr", "ln",
    ] {
        add(&format!("bin/{name}"), Symlink, 0o777, "busybox", b"");
    }
    add("lib", Symlink, 0o777, "usr/lib", b"");
    add("outside", Symlink, 0o777, "/../../../tmp", b"");
    add(
        "etc/passwd",
        Regular,
        0o644,
        "",
        b"root:x:0:0::/:/bin/sh\nnode:x:1000:1001::/:/bin/sh\n",
    );
    tar.into_inner().unwrap()
}

impl Lab {
    /// Nothing where the machine cannot run steps.
    pub async fn new() -> Option<Lab> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to mount and to enter namespaces");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            println!("skipped: needs /bin/busybox (package busybox-static)");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("berth-build-").tempdir().unwrap();
        let store = Store::open(&dir.path().join("root")).unwrap();
        let client = registry::Client::new(registry::ClientConfig::default()).unwrap();
        let images = Images::open(store.clone(), client).unwrap();
        let executor = Arc::new(Chroot {
            store: store.clone(),
            runs: AtomicUsize::new(0),
        });
        let builder = Builder::new(images.clone(), store.clone(), executor.clone()).unwrap();
        let context = dir.path().join("context");
        std::fs::create_dir(&context).unwrap();
        let lab = Lab {
            builder,
            images,
            store,
            executor,
            context,
            _dir: dir,
        };
        lab.import("base", ContainerSettings::default()).await;
        Some(lab)
    }

    /// Imports the base filesystem under another name and with these settings.
    pub async fn import(&self, name: &str, changes: ContainerSettings) {
        let images = self.images.clone();
        let options = ImportOptions {
            reference: Some(Reference::parse_normalized(name).unwrap()),
            message: String::new(),
            changes,
            platform: None,
        };
        let (progress, _events) = mpsc::channel(16);
        tokio::task::spawn_blocking(move || images.import(base().as_slice(), options, progress))
            .await
            .unwrap()
            .unwrap();
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.context.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn request(&self, dockerfile: &str) -> BuildRequest {
        self.write("Dockerfile", dockerfile);
        BuildRequest::new(&self.context)
    }

    /// A client that lends this lab's context and one secret.
    pub fn lender(&self, id: &str, secret: &str) -> Arc<dyn Client> {
        Arc::new(Lender {
            context: self.context.clone(),
            id: id.to_owned(),
            secret: secret.as_bytes().to_vec(),
        })
    }

    pub async fn build(&self, dockerfile: &str) -> Built {
        self.build_request(self.request(dockerfile)).await
    }

    pub async fn build_request(&self, request: BuildRequest) -> Built {
        let before = self.executor.runs.load(Ordering::SeqCst);
        let (output, mut events) = mpsc::channel(64);
        let listen = async {
            let mut text = String::new();
            while let Some(event) = events.recv().await {
                if let BuildEvent::Text(part) | BuildEvent::ErrorText(part) = event {
                    text.push_str(&part);
                }
            }
            text
        };
        let (result, text) = tokio::join!(self.builder.build(request, output), listen);
        Built {
            result,
            text,
            runs: self.executor.runs.load(Ordering::SeqCst) - before,
        }
    }

    fn tree(&self, image: &Image) -> OwnedFd {
        let snapshot = self.images.snapshot(image).unwrap();
        self.store
            .snapshots()
            .overlay(snapshot)
            .unwrap()
            .mount_detached()
            .unwrap()
    }

    /// The content of a file of an image.
    pub fn cat(&self, image: &Image, path: &str) -> String {
        let tree = self.tree(image);
        let file = sys::beneath::resolve_in_root(tree.as_fd(), path, OFlags::RDONLY, Mode::empty())
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).unwrap();
        text
    }

    /// What lies at a path of an image, links not followed at its end.
    pub fn stat(&self, image: &Image, path: &str) -> Option<Stat> {
        let tree = self.tree(image);
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let file = sys::beneath::resolve_in_root(tree.as_fd(), path, flags, Mode::empty()).ok()?;
        Some(rustix::fs::fstat(&file).unwrap())
    }

    pub fn has(&self, image: &Image, path: &str) -> bool {
        self.stat(image, path).is_some()
    }

    /// Mode bits, user and group of a path of an image.
    pub fn owner(&self, image: &Image, path: &str) -> (u32, u32, u32) {
        let stat = self
            .stat(image, path)
            .unwrap_or_else(|| panic!("{path} is missing"));
        (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
    }

    /// An extended attribute of a file of an image.
    pub fn attribute(&self, image: &Image, path: &str, key: &str) -> Vec<u8> {
        let tree = self.tree(image);
        let file = sys::beneath::resolve_in_root(tree.as_fd(), path, OFlags::RDONLY, Mode::empty()).unwrap();
        let all = sys::beneath::file_xattrs(file.as_fd()).unwrap();
        let found = all.into_iter().find(|(name, _)| name == key);
        found.unwrap_or_else(|| panic!("{path} has no {key}")).1
    }

    /// Snapshots that a step still owns, cache mounts aside.
    pub fn leftovers(&self) -> usize {
        let all = self.store.snapshots().list().unwrap();
        all.iter()
            .filter(|snapshot| !snapshot.committed && !snapshot.owner.starts_with("build:cache:"))
            .count()
    }
}
