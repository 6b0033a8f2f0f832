//! Where a build's files come from: a directory, an archive or a Dockerfile on the standard input (`-`), or a URL that the
//! engine fetches itself. The Dockerfile may lie elsewhere.

use crate::failure::Failure;
use crate::grammar::env;
use crate::terminal;
use session::control::STREAM;
use session::enclosed::Enclosed;
use session::pattern::Ignore;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The name of the client's context, and of the directory with the Dockerfile.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
/// What a Dockerfile is called that has no name.
const NAME: &str = "Dockerfile";
/// Dockerfiles above this size are a mistake.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// What is lent, and how the engine is told of it.
#[derive(Default)]
pub struct Source {
    pub attributes: BTreeMap<String, String>,
    pub directories: BTreeMap<String, PathBuf>,
    pub upload: Option<(String, Box<dyn Read + Send>)>,
    /// What the client's directory is known by from one build to the next.
    pub key: String,
    /// Held as long as the build.
    _room: Option<tempfile::TempDir>,
}

impl Source {
    fn set(&mut self, key: &str, value: impl Into<String>) {
        self.attributes.insert(key.to_owned(), value.into());
    }

    /// The Dockerfile lies alone in a directory of its own, with what it ignores: nothing beside it is lent.
    fn write_dockerfile(
        &mut self,
        name: &str,
        text: &[u8],
        ignore: Option<&[u8]>,
    ) -> Result<PathBuf, Failure> {
        let failed = |error: io::Error| Failure::text(format!("cannot keep the Dockerfile: {error}"));
        let room = tempfile::tempdir().map_err(failed)?;
        let place = room.path().join("dockerfile");
        std::fs::create_dir(&place).map_err(failed)?;
        std::fs::write(place.join(name), text).map_err(failed)?;
        if let Some(ignore) = ignore {
            std::fs::write(ignore_of(&place.join(name)), ignore).map_err(failed)?;
        }
        self.set("filename", name);
        let empty = room.path().join("context");
        std::fs::create_dir(&empty).map_err(failed)?;
        self.directories.insert(DOCKERFILE.to_owned(), place);
        self._room = Some(room);
        Ok(empty)
    }

    /// What is read of it first, where it can go with the request.
    pub fn enclosed(&self) -> Option<Enclosed> {
        let name = self.attributes.get("filename")?;
        Enclosed::read(
            self.directories.get(DOCKERFILE)?,
            name,
            self.directories.get(CONTEXT)?,
        )
    }

    /// The context that `argument` names, with the Dockerfile that `file` names.
    pub fn of(argument: &str, file: &str) -> Result<Source, Failure> {
        match argument {
            "-" if file == "-" => Err(Failure::text(
                "invalid argument: can't use stdin for both build context and dockerfile",
            )),
            "-" => from_stdin(file),
            url if is_remote(url) => from_url(url, file),
            directory => from_directory(Path::new(directory), file),
        }
    }
}

pub fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

fn read_dockerfile(source: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .take(DOCKERFILE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::text(format!("cannot read the Dockerfile: {error}")))?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT {
        return Err(Failure::text(format!(
            "the Dockerfile has more than {} MiB, which are the most",
            DOCKERFILE_LIMIT >> 20
        )));
    }
    Ok(bytes)
}

/// A Dockerfile or what it ignores, by its name.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let opened = std::fs::File::open(path);
    read_dockerfile(
        opened.map_err(|error| Failure::text(format!("cannot read {}: {error}", path.display())))?,
    )
}

fn from_url(url: &str, file: &str) -> Result<Source, Failure> {
    let mut source = Source::default();
    source.set("context", url);
    if file == "-" {
        source.write_dockerfile(NAME, &read_dockerfile(io::stdin())?, None)?;
        source.set("dockerfilekey", DOCKERFILE);
    } else if !file.is_empty() {
        source.set("filename", file);
    }
    Ok(source)
}

/// A directory as it is named on the command line.
pub fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let root = std::fs::canonicalize(path).map_err(|error| {
        Failure::text(format!(
            "unable to prepare context: unable to evaluate symlinks in context path: lstat {}: {}",
            path.display(),
            env::describe(&error)
        ))
    })?;
    match root.is_dir() {
        true => Ok(root),
        false => Err(Failure::text(format!(
            "unable to prepare context: context must be a directory: {}",
            root.display()
        ))),
    }
}

fn from_directory(path: &Path, file: &str) -> Result<Source, Failure> {
    let root = directory(path)?;
    let mut source = Source {
        key: root.display().to_string(),
        ..Source::default()
    };
    source.directories.insert(CONTEXT.to_owned(), root.clone());
    if file == "-" {
        source.write_dockerfile(NAME, &read_dockerfile(io::stdin())?, None)?;
        return Ok(source);
    }
    let path = find_dockerfile(&root, file)?;
    let Some(name) = inside_of(&root, &path) else {
        let ignore = ignore_of(&path);
        let ignore = ignore.exists().then(|| read_file(&ignore)).transpose()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        source.write_dockerfile(&name, &read_file(&path)?, ignore.as_deref())?;
        return Ok(source);
    };
    source.set("filename", name);
    source.directories.insert(DOCKERFILE.to_owned(), root);
    Ok(source)
}

/// The Dockerfile that `file` names. Without a name it is the context's; a given name is relative to the client's
/// directory, or else to the context.
pub fn find_dockerfile(root: &Path, file: &str) -> Result<PathBuf, Failure> {
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
fn inside_of(root: &Path, path: &Path) -> Option<String> {
    path.strip_prefix(root)
        .ok()
        .and_then(Path::to_str)
        .map(str::to_owned)
}

/// What a Dockerfile ignores of its own.
fn ignore_of(dockerfile: &Path) -> PathBuf {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(".dockerignore");
    PathBuf::from(name)
}

/// The rules of a context: `<Dockerfile>.dockerignore` beside the Dockerfile, or `.dockerignore` at the root.
pub fn rules(root: &Path, dockerfile: Option<&Path>) -> Result<Ignore, Failure> {
    let own = dockerfile.map(ignore_of);
    for path in own.into_iter().chain([root.join(".dockerignore")]) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                return Ignore::parse(&text)
                    .map_err(|error| Failure::text(format!("{}: {error}", path.display())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::text(format!("cannot read {}: {error}", path.display()))),
        }
    }
    Ok(Ignore::default())
}

/// A tar (compressed or not) is handed on as it comes; anything else is a Dockerfile.
fn from_stdin(file: &str) -> Result<Source, Failure> {
    if terminal::stdin_is_terminal() {
        eprintln!("reading the build context from the terminal; end with ctrl-d");
    }
    let mut head = Vec::new();
    io::stdin()
        .take(512)
        .read_to_end(&mut head)
        .map_err(|error| Failure::text(format!("failed to peek context header from STDIN: {error}")))?;
    let mut source = Source {
        key: "standard input".to_owned(),
        ..Source::default()
    };
    if is_archive(&head) {
        let name = spec::Id::random().to_string();
        source.set("context", format!("{STREAM}{name}"));
        if !file.is_empty() {
            source.set("filename", file);
        }
        source.upload = Some((name, Box::new(io::Cursor::new(head).chain(io::stdin()))));
        return Ok(source);
    }
    if !file.is_empty() {
        return Err(
            Failure::text("a Dockerfile comes on the standard input, and -f names another one")
                .hint("leave -f away, or send an archive that holds the Dockerfile"),
        );
    }
    let text = read_dockerfile(io::Cursor::new(head).chain(io::stdin()))?;
    let empty = source.write_dockerfile(NAME, &text, None)?;
    source.directories.insert(CONTEXT.to_owned(), empty);
    Ok(source)
}

fn is_archive(head: &[u8]) -> bool {
    let magic: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magic.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_is_whole_or_refused() {
        let limit = usize::try_from(DOCKERFILE_LIMIT).unwrap();
        assert_eq!(
            read_dockerfile(io::repeat(b'#').take(DOCKERFILE_LIMIT))
                .unwrap()
                .len(),
            limit
        );
        let said = read_dockerfile(io::repeat(b'#')).unwrap_err().message;
        assert!(said.contains("more than 16 MiB"), "{said}");
    }

    #[test]
    fn kinds_of_sources() {
        assert!(is_remote("https://h/x.git#main:dir") && is_remote("git@h:x") && !is_remote("./x"));
        assert!(is_archive(b"\x1f\x8b\x08rest") && !is_archive(b"FROM scratch\n"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
        std::fs::write(dir.path().join("sub/D"), "FROM scratch").unwrap();
        let place = |source: &Source| source.directories[DOCKERFILE].clone();
        let root = dir.path().canonicalize().unwrap();
        let source = from_directory(dir.path(), "").unwrap();
        assert_eq!(
            (source.attributes["filename"].as_str(), place(&source)),
            ("Dockerfile", root.clone())
        );
        let source = from_directory(dir.path(), "sub/D").unwrap();
        assert_eq!(
            (source.attributes["filename"].as_str(), place(&source)),
            ("sub/D", root.clone())
        );
        let other = tempfile::tempdir().unwrap();
        let outside = from_directory(other.path(), &root.join("sub/D").display().to_string()).unwrap();
        // Nothing beside it is lent.
        assert_eq!(outside.attributes["filename"], "D");
        let lent = |source: &Source| {
            let names = std::fs::read_dir(place(source)).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(lent(&outside), ["D"]);
        std::fs::write(dir.path().join("sub/D.dockerignore"), "x").unwrap();
        let outside = from_directory(other.path(), &root.join("sub/D").display().to_string()).unwrap();
        assert_eq!(lent(&outside), ["D", "D.dockerignore"]);
        let kept = place(&outside);
        drop(outside);
        assert!(!kept.exists());
        assert!(from_directory(other.path(), "").is_err());
        let source = from_directory(dir.path(), "sub/D").unwrap();
        let enclosed = source.enclosed().unwrap();
        assert_eq!(enclosed.ignore.as_deref(), Some(&b"x"[..]));
        let remote = from_url("https://h/x.git", "D").unwrap();
        assert_eq!(remote.enclosed(), None);
        assert_eq!(
            (remote.attributes["context"].as_str(), remote.directories.len()),
            ("https://h/x.git", 0)
        );
    }
}
