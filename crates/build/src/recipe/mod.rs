//! Builds that are not written as a Dockerfile: operations that use each other's results, as clients of BuildKit send
//! them. They are solved by the same solver and known by the same cache as steps of Dockerfiles.
//!
//! Whoever makes a [`Recipe`] has checked it: an operation uses only results of operations before it.

mod plan;

use spec::{Digest, Platform};

use crate::instruction::{Mount, RunNetwork};
use crate::remote::Ssh;
use crate::request::{Allowed, BuiltContext};

pub(crate) use plan::plan;

/// Operations, those that are used before those that use them, and what is wanted of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub operations: Vec<Operation>,
    pub wanted: Output,
}

/// A result of an operation. Most have one, number 0; a command has one for each mount whose files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Output {
    pub operation: usize,
    pub number: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// How it is shown.
    pub title: String,
    /// Made again whatever the cache knows.
    pub anew: bool,
    pub platform: Option<Platform>,
    pub action: Action,
}

impl Operation {
    /// The word for what it wants as a command and is not allowed.
    pub(crate) fn lacks(&self, allowed: Allowed) -> Option<&'static str> {
        match &self.action {
            Action::Exec(exec) => allowed.lacks(exec.insecure, exec.network),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// The files of an image.
    Image {
        name: String,
        pull: bool,
    },
    /// A directory of the client, by the name under which the build's client knows it.
    Directory(String),
    /// A file of a web server.
    Web(Web),
    /// A git repository: `URL#REF:SUBDIRECTORY`.
    Git {
        source: String,
        keep_git_dir: bool,
        ssh: Ssh,
    },
    /// What another build made.
    Built(Box<BuiltContext>),
    Exec(Box<Exec>),
    Files(Vec<FileAction>),
    /// The layers of all of them on top of each other.
    Merge(Vec<Option<Output>>),
    /// What has to be laid over `lower` to get `upper`.
    Difference {
        lower: Option<Output>,
        upper: Option<Output>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Web {
    pub url: String,
    pub checksum: Option<Digest>,
    /// Under which name it lies in the result.
    pub name: String,
    pub mode: u32,
    pub owner: (u32, u32),
}

/// A command. One of the mounts is its root.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Variables that reach the command and not the cache.
    pub proxy: Vec<String>,
    /// Absolute.
    pub cwd: String,
    pub user: String,
    pub hostname: String,
    /// `name:address`.
    pub hosts: Vec<String>,
    pub network: Option<RunNetwork>,
    pub insecure: bool,
    /// Exit codes that are no failure; empty: 0.
    pub good_codes: Vec<i32>,
    pub mounts: Vec<ExecMount>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ExecMount {
    /// The source is a path in the files that are mounted, and the kind says which they are.
    pub mount: Mount,
    /// Absolute; `/` is the root.
    pub target: String,
    /// `None`: nothing is there at first.
    pub input: Option<Output>,
    /// As which result of the operation its files are kept.
    pub output: Option<usize>,
}

/// One change of files. Changes that are not kept are what others start from.
#[derive(Debug, Clone, PartialEq)]
pub struct FileAction {
    pub base: FileSource,
    /// As which result of the operation the files are kept.
    pub output: Option<usize>,
    pub change: FileChange,
}

/// What a change of files starts from or copies from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSource {
    Nothing,
    Output(Output),
    /// What an earlier change of the same operation left.
    Action(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub enum FileChange {
    Copy {
        from: FileSource,
        copy: FileCopy,
    },
    MakeFile {
        path: String,
        mode: u32,
        data: Vec<u8>,
        owner: Owner,
        /// Seconds since 1970; `None`: now.
        time: Option<i64>,
    },
    MakeDirectory {
        path: String,
        mode: u32,
        parents: bool,
        owner: Owner,
        time: Option<i64>,
    },
    Remove {
        path: String,
        may_be_missing: bool,
        wildcard: bool,
    },
    Link {
        goal: String,
        path: String,
        owner: Owner,
        time: Option<i64>,
    },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileCopy {
    pub source: String,
    pub destination: String,
    /// `None`: as it is.
    pub owner: Option<Owner>,
    /// By number or by letters.
    pub mode: Option<String>,
    /// A link that the source names is followed.
    pub follow: bool,
    /// What is in a directory is copied, and not the directory.
    pub contents: bool,
    pub unpack: bool,
    /// Directories on the way to the destination are made.
    pub make_parents: bool,
    pub wildcard: bool,
    pub may_be_missing: bool,
    pub exclude: Vec<String>,
}

/// Names or numbers of a user and a group, looked up in the files that are changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    pub user: String,
    pub group: String,
}

impl Owner {
    /// As `--chown` writes it; root unless something is said.
    pub fn written(&self) -> String {
        let or_root = |text: &str| {
            if text.is_empty() {
                "0".to_owned()
            } else {
                text.to_owned()
            }
        };
        match (self.user.as_str(), self.group.as_str()) {
            ("", "") => "0:0".to_owned(),
            // A number says nothing of a group, a name brings its own along.
            (user, "") if user.bytes().all(|byte| byte.is_ascii_digit()) => format!("{user}:0"),
            (user, "") => user.to_owned(),
            (user, group) => format!("{}:{group}", or_root(user)),
        }
    }
}
