//! How a case is written:
//!
//! ```text
//! ## NAME: what must hold, in a sentence
//! only: CLIENT                the one client that can do it
//! except: CLIENT              the one client that cannot
//! > PATH [OPTION]             a file of the context, its content in the lines that follow
//! $ ARGUMENTS                 of the build, separated by blanks
//! = EXPECTATION
//! ```
//!
//! Options of a file: octal permissions; `crlf` (Windows line ends); `bom` (a byte order mark in front); `tar` (the lines are
//! `name=content` of an archive, compressed as the name says); `-> GOAL` (a link); `= PATH` (the same bytes as another
//! file). A file below `web/` lies on a web server instead, one below `git/` in a repository on it, `repo.git`. `{web}` and
//! `{registry}` stand for the server, `{dir}` for the context.
//!
//! Expectations of an image: `file PATH MODE UID:GID ["CONTENT"]`, `dir PATH MODE UID:GID`, `link PATH GOAL`, `none PATH`,
//! `env K=V`, `noenv K`, `config KEY JSON`, `history LINE | LINE` (the last ones, oldest first), `layers N` (on top of the
//! base), `author TEXT`, `created TIME`, and `again`: built once more, it comes from the cache. `error TEXT` says that the
//! build fails and prints the text, `says TEXT` that it prints it, `silent TEXT` that it does not, `classic TEXT` that
//! clients with the classic builder's words do.

/// One example.
pub struct Case {
    pub file: &'static str,
    pub name: String,
    pub title: String,
    pub only: Option<String>,
    pub except: Option<String>,
    pub files: Vec<File>,
    pub args: Vec<String>,
    pub expected: Vec<Expected>,
}

/// A file of the context.
pub struct File {
    pub path: String,
    pub option: String,
    pub content: String,
}

#[derive(Debug, PartialEq)]
pub enum Expected {
    File {
        path: String,
        mode: u32,
        owner: (u32, u32),
        content: Option<String>,
    },
    Dir {
        path: String,
        mode: u32,
        owner: (u32, u32),
    },
    Link {
        path: String,
        goal: String,
    },
    None(String),
    Env(String),
    NoEnv(String),
    Config {
        key: String,
        value: serde_json::Value,
    },
    History(Vec<String>),
    Layers(usize),
    Author(String),
    Created(String),
    Again,
    Error(String),
    Says(String),
    Silent(String),
    Classic(String),
}

impl Case {
    /// Whether the build must fail.
    pub fn fails(&self) -> bool {
        self.expected
            .iter()
            .any(|expected| matches!(expected, Expected::Error(_)))
    }
}

/// Reads a file of cases.
pub fn read(file: &'static str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("## ") {
            let (name, title) = head.split_once(": ").unwrap_or_else(|| panic!("{file}: {head}"));
            cases.push(Case {
                file,
                name: name.to_owned(),
                title: title.to_owned(),
                only: None,
                except: None,
                files: Vec::new(),
                args: Vec::new(),
                expected: Vec::new(),
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            panic!("{file}: {line:?} stands before the first case");
        };
        if let Some(only) = line.strip_prefix("only: ") {
            case.only = Some(only.to_owned());
        } else if let Some(except) = line.strip_prefix("except: ") {
            case.except = Some(except.to_owned());
        } else if let Some(file) = line.strip_prefix("> ") {
            case.files.push(file_of(file));
        } else if let Some(args) = line.strip_prefix("$ ") {
            case.args.extend(args.split(' ').map(str::to_owned));
        } else if let Some(words) = line.strip_prefix("= ") {
            let read = expected(words).unwrap_or_else(|| panic!("{file}: {}: {line}", case.name));
            case.expected.push(read);
        } else if let (Some(file), true) = (case.files.last_mut(), case.expected.is_empty()) {
            file.content.push_str(line);
            file.content.push('\n');
        } else {
            assert!(
                line.is_empty(),
                "{file}: {}: {line:?} belongs to nothing",
                case.name
            );
        }
    }
    cases
}

fn file_of(head: &str) -> File {
    const OPTIONS: [&str; 3] = ["crlf", "bom", "tar"];
    let split = |(path, option): (&str, &str)| (path.to_owned(), option.to_owned());
    let is_option = |word: &str| OPTIONS.contains(&word) || word.parse::<u32>().is_ok();
    let (path, option) = match (
        head.split_once(" -> "),
        head.split_once(" = "),
        head.rsplit_once(' '),
    ) {
        (Some((path, goal)), _, _) => (path.to_owned(), format!("-> {goal}")),
        (_, Some((path, same)), _) => (path.to_owned(), format!("= {same}")),
        (_, _, Some(both)) if is_option(both.1) => split(both),
        _ => (head.to_owned(), String::new()),
    };
    File {
        path,
        option,
        content: String::new(),
    }
}

fn expected(words: &str) -> Option<Expected> {
    let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
    let text = rest.to_owned();
    let placed = || -> Option<(String, u32, (u32, u32), &str)> {
        let mut parts = rest.splitn(4, ' ');
        let path = parts.next()?.replace("\\u0020", " ");
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let (uid, gid) = parts.next()?.split_once(':')?;
        Some((
            path,
            mode,
            (uid.parse().ok()?, gid.parse().ok()?),
            parts.next().unwrap_or_default(),
        ))
    };
    Some(match kind {
        "file" => {
            let (path, mode, owner, content) = placed()?;
            let content = match content {
                "" => None,
                quoted => Some(serde_json::from_str(quoted).ok()?),
            };
            Expected::File {
                path,
                mode,
                owner,
                content,
            }
        }
        "dir" => {
            let (path, mode, owner, _) = placed()?;
            Expected::Dir { path, mode, owner }
        }
        "link" => {
            let (path, goal) = rest.split_once(' ')?;
            Expected::Link {
                path: path.to_owned(),
                goal: goal.to_owned(),
            }
        }
        "config" => {
            let (key, value) = rest.split_once(' ')?;
            Expected::Config {
                key: key.to_owned(),
                value: serde_json::from_str(value).ok()?,
            }
        }
        "none" => Expected::None(text),
        "env" => Expected::Env(text),
        "noenv" => Expected::NoEnv(text),
        "history" => Expected::History(rest.split(" | ").map(str::to_owned).collect()),
        "layers" => Expected::Layers(rest.parse().ok()?),
        "author" => Expected::Author(text),
        "created" => Expected::Created(text),
        "again" => Expected::Again,
        "error" => Expected::Error(text),
        "says" => Expected::Says(text),
        "silent" => Expected::Silent(text),
        "classic" => Expected::Classic(text),
        _ => return None,
    })
}
