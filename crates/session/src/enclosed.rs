//! The Dockerfile and what it ignores, enclosed with the request for a build.
//!
//! Both are small and everything else waits for them: an engine of this project takes them from the request, where others
//! ask the session for them as they do for any file. They travel as headers, which engines that do not know them pass over.
//!
//! What is enclosed is what the session would have given. Where that is not plain (a link, something large or missing), nothing
//! is enclosed and the engine asks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sys::beneath::open_beneath_no_links;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

const DOCKERFILE: &str = "berth-dockerfile-bin";
const IGNORE: &str = "berth-dockerignore-bin";
/// The most of each: engines of others may have little room for headers.
const MOST: u64 = 8 << 10;

/// What is enclosed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enclosed {
    pub dockerfile: Vec<u8>,
    /// The Dockerfile's own ignore file, else the context's; `None` where there is neither.
    pub ignore: Option<Vec<u8>>,
}

/// A file that was looked for.
enum Looked {
    Is(Vec<u8>),
    Missing,
    /// It is there and not to be enclosed.
    Other,
}

fn look(directory: &Path, name: &str) -> io::Result<Looked> {
    let root = File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_beneath_no_links(root.as_fd(), Path::new(name), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Looked::Missing),
        Err(_) => return Ok(Looked::Other),
    };
    if !file.metadata()?.is_file() {
        return Ok(Looked::Other);
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST {
        true => Ok(Looked::Other),
        false => Ok(Looked::Is(bytes)),
    }
}

impl Enclosed {
    /// What a build of `context` with the Dockerfile `name` in `directory` reads first; `None` where it is to be asked for.
    pub fn read(directory: &Path, name: &str, context: &Path) -> Option<Enclosed> {
        let Ok(Looked::Is(dockerfile)) = look(directory, name) else {
            return None;
        };
        let own = format!("{name}.dockerignore");
        for (directory, name) in [(directory, own.as_str()), (context, ".dockerignore")] {
            match look(directory, name).ok()? {
                Looked::Is(text) => {
                    let ignore = Some(text);
                    return Some(Enclosed { dockerfile, ignore });
                }
                Looked::Missing => {}
                Looked::Other => return None,
            }
        }
        let ignore = None;
        Some(Enclosed { dockerfile, ignore })
    }

    /// Encloses it.
    pub fn add(&self, metadata: &mut MetadataMap) {
        metadata.insert_bin(DOCKERFILE, BinaryMetadataValue::from_bytes(&self.dockerfile));
        if let Some(ignore) = &self.ignore {
            metadata.insert_bin(IGNORE, BinaryMetadataValue::from_bytes(ignore));
        }
    }

    /// What is enclosed with a call.
    pub fn of(metadata: &MetadataMap) -> Option<Enclosed> {
        let get = |name: &str| Some(metadata.get_bin(name)?.to_bytes().ok()?.to_vec());
        Some(Enclosed {
            dockerfile: get(DOCKERFILE)?,
            ignore: get(IGNORE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enclosed_is_what_the_session_would_give() {
        let dir = tempfile::tempdir().unwrap();
        let (context, other) = (dir.path().join("context"), dir.path().join("other"));
        for made in [&context, &other] {
            std::fs::create_dir(made).unwrap();
        }
        let read = |name: &str| Enclosed::read(&other, name, &context);
        assert_eq!(read("Dockerfile"), None);
        std::fs::write(other.join("Dockerfile"), b"FROM a\xff\n").unwrap();
        let mut wanted = Enclosed {
            dockerfile: b"FROM a\xff\n".to_vec(),
            ignore: None,
        };
        assert_eq!(read("Dockerfile"), Some(wanted.clone()));
        std::fs::write(context.join(".dockerignore"), "all").unwrap();
        wanted.ignore = Some(b"all".to_vec());
        assert_eq!(read("Dockerfile"), Some(wanted.clone()));
        std::fs::write(other.join("Dockerfile.dockerignore"), "").unwrap();
        wanted.ignore = Some(Vec::new());
        assert_eq!(read("Dockerfile"), Some(wanted.clone()));
        let mut metadata = MetadataMap::new();
        assert_eq!(Enclosed::of(&metadata), None);
        wanted.add(&mut metadata);
        assert_eq!(Enclosed::of(&metadata), Some(wanted));
    }

    #[test]
    fn what_is_not_plain_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| Enclosed::read(dir.path(), name, dir.path());
        std::fs::write(dir.path().join("Dockerfile"), "FROM a\n").unwrap();
        std::os::unix::fs::symlink("Dockerfile", dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("large"), vec![b'#'; 9000]).unwrap();
        for name in ["link", "large", ".", "../x", "nosuch"] {
            assert_eq!(read(name), None, "{name}");
        }
        std::os::unix::fs::symlink("Dockerfile", dir.path().join(".dockerignore")).unwrap();
        assert_eq!(read("Dockerfile"), None);
    }
}
