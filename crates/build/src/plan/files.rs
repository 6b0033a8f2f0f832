//! Planning COPY and ADD.

use super::settings::below;
use super::stage::Planning;
use super::{Planner, mistake};
use crate::error::BuildError;
use crate::instruction::{Copy, Statement};
use crate::remote::{Ssh, is_git, is_url, without_password};
use crate::solve::VertexId;
use crate::step::{CopyStep, FileSource, ModeChange, StepKind};
use crate::transcript::StepNumber;

impl Planning {
    /// Plans a COPY or ADD.
    pub async fn copy(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        copy: &Copy,
        add: bool,
        number: StepNumber,
    ) -> Result<(), BuildError> {
        let (step, history) = self.copy_step(statement, copy, add)?;
        let inputs = match &copy.from {
            Some(from) => vec![self.tree_of(planner, statement, from, number).await?],
            None => Vec::new(),
        };
        // Names of users can only be looked up in the stage's own filesystem.
        let numeric = step.chown.as_deref().is_none_or(is_numeric);
        if !(copy.link && numeric) {
            let kind = StepKind::Copy(Box::new(step));
            return self
                .add_filesystem(planner, kind, statement, number, &inputs, history)
                .await;
        }
        // What is linked is made on its own, so that it is known whatever lies below, and then laid over that.
        let empty = self
            .add_vertex(planner, StepKind::Base(None), statement, number, &[])
            .await?;
        let alone: Vec<VertexId> = [empty].into_iter().chain(inputs).collect();
        let kind = StepKind::Copy(Box::new(step));
        let made = self.add_vertex(planner, kind, statement, number, &alone).await?;
        let kind = StepKind::Copy(Box::new(CopyStep::overlay()));
        self.add_filesystem(planner, kind, statement, number, &[made], history)
            .await
    }

    /// What a COPY or ADD does, and its line of history.
    fn copy_step(
        &self,
        statement: &Statement,
        copy: &Copy,
        add: bool,
    ) -> Result<(CopyStep, String), BuildError> {
        let keyword = if add { "ADD" } else { "COPY" };
        let words = |list: &[String]| -> Result<Vec<String>, BuildError> {
            list.iter().map(|text| self.word(statement, text)).collect()
        };
        let optional = |text: &Option<String>| -> Result<Option<String>, BuildError> {
            text.as_deref().map(|text| self.word(statement, text)).transpose()
        };
        let all = words(&copy.sources)?;
        let (git, others): (Vec<String>, Vec<String>) =
            all.iter().cloned().partition(|source| add && is_git(source));
        let (remote, sources): (Vec<String>, Vec<String>) =
            others.into_iter().partition(|source| is_url(source));
        if let (Some(url), false) = (remote.first(), add) {
            return Err(mistake(
                statement,
                format!("source can't be a URL for COPY: {url}"),
            ));
        }
        let mut inline = Vec::new();
        for file in &copy.inline {
            let content = match file.expand {
                true => self.document(statement, &file.content)?,
                false => file.content.clone(),
            };
            inline.push((file.name.clone(), content));
        }
        let written = match self.word(statement, &copy.destination)?.as_str() {
            // A variable may have nothing in it.
            "" => ".".to_owned(),
            written => written.to_owned(),
        };
        let mut destination = below(&self.plan.settings.working_dir, &written);
        let is_dir =
            written.ends_with('/') || matches!(written.as_str(), "." | "..") || written.ends_with("/.");
        if (is_dir || copy.parents) && !destination.ends_with('/') {
            destination.push('/');
        }
        let chmod = match optional(&copy.chmod)? {
            None => None,
            Some(text) => {
                let change = ModeChange::parse(&text).map_err(|message| mistake(statement, message))?;
                Some((text, change))
            }
        };
        let mut commit = None;
        let checksum = match optional(&copy.checksum)? {
            None => None,
            Some(_) if remote.len() + git.len() != 1 || !sources.is_empty() => {
                let text = "checksum requires exactly one source that is fetched";
                return Err(mistake(statement, text.to_owned()));
            }
            Some(text) if !git.is_empty() => {
                if !is_commit(&text) {
                    let text = format!("--checksum: {text} is not the hexadecimal name of a commit");
                    return Err(mistake(statement, text));
                }
                commit = Some(text.to_ascii_lowercase());
                None
            }
            Some(text) => {
                let digest = text
                    .parse()
                    .map_err(|error| mistake(statement, format!("--checksum: {error}")))?;
                Some(digest)
            }
        };
        let history = {
            // A password of a server is nobody's business.
            let shown = all
                .iter()
                .map(|source| {
                    if add {
                        without_password(source)
                    } else {
                        source.clone()
                    }
                })
                .chain(inline.iter().map(|(name, _)| name.clone()))
                .collect::<Vec<_>>();
            format!("{keyword} {} {written} # buildkit", shown.join(" "))
        };
        let step = CopyStep {
            keyword,
            from: if copy.from.is_some() {
                FileSource::Tree
            } else {
                FileSource::Context
            },
            sources,
            remote,
            git,
            keep_git_dir: copy.keep_git_dir,
            ssh: Ssh::default(),
            commit,
            inline,
            destination,
            chown: optional(&copy.chown)?,
            chmod,
            exclude: words(&copy.exclude)?,
            parents: copy.parents,
            checksum,
            unpack: (
                add && copy.unpack.unwrap_or(true),
                add && copy.unpack.unwrap_or(false),
            ),
            over_links: false,
            fetched: Default::default(),
            cloned: Default::default(),
        };
        Ok((step, history))
    }
}

fn is_numeric(chown: &str) -> bool {
    chown
        .split(':')
        .all(|part| part.chars().all(|c| c.is_ascii_digit()))
}

/// Whether a text can be (the beginning of) a commit's name.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}
