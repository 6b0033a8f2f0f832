//! Changes of files.

use bollard_buildkit_proto::pb::{
    ChownOpt, FileActionCopy, FileOp, UserOpt, file_action::Action as Change, user_opt::User,
};
use build::recipe::{FileAction, FileChange, FileCopy, FileSource, Owner};

use super::read::Place;
use crate::error::Failure;

/// The most changes of one operation.
const MAX_CHANGES: usize = 10_000;

/// How an operation is shown.
pub fn title(op: &FileOp) -> String {
    let words = op.actions.iter().map(|action| match &action.action {
        Some(Change::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Change::Mkfile(file)) => format!("mkfile {}", file.path),
        Some(Change::Mkdir(directory)) => format!("mkdir {}", directory.path),
        Some(Change::Rm(removed)) => format!("rm {}", removed.path),
        Some(Change::Symlink(link)) => format!("symlink {} {}", link.oldpath, link.newpath),
        None => "nothing".to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

pub fn read(op: &FileOp, place: &Place<'_>) -> Result<Vec<FileAction>, Failure> {
    if op.actions.len() > MAX_CHANGES {
        let text = format!("an operation changes files more than {MAX_CHANGES} times");
        return Err(Failure::invalid(text));
    }
    let inputs = i64::try_from(place.node.inputs.len()).unwrap_or(i64::MAX);
    let mut actions = Vec::with_capacity(op.actions.len());
    for (at, action) in op.actions.iter().enumerate() {
        // Numbers beyond the inputs are those of the changes before.
        let source = |number: i64| -> Result<FileSource, Failure> {
            if number < inputs {
                return Ok(place
                    .input(number)?
                    .map_or(FileSource::Nothing, FileSource::Output));
            }
            match usize::try_from(number - inputs) {
                Ok(before) if before < at => Ok(FileSource::Action(before)),
                _ => Err(Failure::invalid(format!(
                    "the change {at} of files uses {number}, which is none of the {} inputs and changes before it",
                    inputs.saturating_add(i64::try_from(at).unwrap_or(0))
                ))),
            }
        };
        let output =
            match action.output {
                -1 => None,
                number => Some(usize::try_from(number).map_err(|_| {
                    Failure::invalid(format!("a change of files is to be the result {number}"))
                })?),
            };
        let mode = |mode: i32| u32::from_ne_bytes(mode.to_ne_bytes()) & 0o7777;
        let time = |time: i64| (time >= 0).then(|| time.div_euclid(1_000_000_000));
        let change = match &action.action {
            Some(Change::Copy(wanted)) => FileChange::Copy {
                from: source(action.secondary_input)?,
                copy: copy(wanted)?,
            },
            Some(Change::Mkfile(file)) => FileChange::MakeFile {
                path: file.path.clone(),
                mode: mode(file.mode),
                data: file.data.clone(),
                owner: owner(file.owner.as_ref()),
                time: time(file.timestamp),
            },
            Some(Change::Mkdir(directory)) => FileChange::MakeDirectory {
                path: directory.path.clone(),
                mode: mode(directory.mode),
                parents: directory.make_parents,
                owner: owner(directory.owner.as_ref()),
                time: time(directory.timestamp),
            },
            Some(Change::Rm(removed)) => FileChange::Remove {
                path: removed.path.clone(),
                may_be_missing: removed.allow_not_found,
                wildcard: removed.allow_wildcard,
            },
            Some(Change::Symlink(link)) => FileChange::Link {
                goal: link.oldpath.clone(),
                path: link.newpath.clone(),
                owner: owner(link.owner.as_ref()),
                time: time(link.timestamp),
            },
            None => {
                return Err(Failure::unimplemented(
                    "the definition changes files in an unknown way",
                ));
            }
        };
        actions.push(FileAction {
            base: source(action.input)?,
            output,
            change,
        });
    }
    Ok(actions)
}

fn copy(wanted: &FileActionCopy) -> Result<FileCopy, Failure> {
    let refused = |what: &str| {
        Err(Failure::unimplemented(format!(
            "{what} of a copy ({} to {}) in a definition is not offered",
            wanted.src, wanted.dest
        )))
    };
    if !wanted.include_patterns.is_empty() || !wanted.required_paths.is_empty() {
        return refused("a choice of files (include patterns)");
    }
    if wanted.always_replace_existing_dest_paths {
        return refused("replacing what is at the destination");
    }
    if wanted.timestamp >= 0 {
        return refused("a time for the copies");
    }
    let mode = match (wanted.mode_str.as_str(), wanted.mode) {
        ("", -1) => None,
        ("", mode) => Some(format!("{:04o}", u32::from_ne_bytes(mode.to_ne_bytes()) & 0o7777)),
        (text, _) => Some(text.to_owned()),
    };
    Ok(FileCopy {
        source: wanted.src.clone(),
        destination: wanted.dest.clone(),
        owner: wanted.owner.as_ref().map(|given| owner(Some(given))),
        mode,
        follow: wanted.follow_symlink,
        contents: wanted.dir_copy_contents,
        unpack: wanted.attempt_unpack_docker_compatibility,
        make_parents: wanted.create_dest_path,
        wildcard: wanted.allow_wildcard,
        may_be_missing: wanted.allow_empty_wildcard,
        exclude: wanted.exclude_patterns.clone(),
    })
}

fn owner(given: Option<&ChownOpt>) -> Owner {
    let text = |part: Option<&UserOpt>| match part.and_then(|part| part.user.as_ref()) {
        Some(User::ById(id)) => id.to_string(),
        Some(User::ByName(named)) => named.name.clone(),
        None => String::new(),
    };
    given.map_or_else(Owner::default, |given| Owner {
        user: text(given.user.as_ref()),
        group: text(given.group.as_ref()),
    })
}
