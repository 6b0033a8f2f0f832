//! Planning COPY and ADD.

use super::settings::below;
use super::stage::Planning;
use super::{Planner, mistake};
use crate::error::BuildError;
use crate::instruction::{Copy, Statement};
use crate::remote::{is_git, is_url};
use crate::solve::VertexId;
use crate::step::{CopyStep, FileSource, ModeChange, StepKind};
use crate::transcript::StepNumber;

impl Planning {
    /// Plans a COPY or ADD: what it does, the vertex it takes files from, its line of history.
    pub async fn copy(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        copy: &Copy,
        add: bool,
        number: StepNumber,
    ) -> Result<(StepKind, Vec<VertexId>, String), BuildError> {
        let keyword = if add { "ADD" } else { "COPY" };
        let words = |list: &[String]| -> Result<Vec<String>, BuildError> {
            list.iter().map(|text| self.word(statement, text)).collect()
        };
        let optional = |text: &Option<String>| -> Result<Option<String>, BuildError> {
            text.as_deref().map(|text| self.word(statement, text)).transpose()
        };
        let all = words(&copy.sources)?;
        if let Some(git) = all.iter().find(|source| add && is_git(source)) {
            let text = format!(
                "ADD of the git repository {git} is not offered: clone it in a RUN, or into the context"
            );
            return Err(mistake(statement, text));
        }
        let (remote, sources): (Vec<String>, Vec<String>) =
            all.iter().cloned().partition(|source| is_url(source));
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
        let written = self.word(statement, &copy.destination)?;
        if written.is_empty() {
            return Err(mistake(statement, format!("{keyword} needs a destination")));
        }
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
        let checksum = match optional(&copy.checksum)? {
            None => None,
            Some(text) => {
                let digest = text
                    .parse()
                    .map_err(|error| mistake(statement, format!("--checksum: {error}")))?;
                if remote.len() != 1 || !sources.is_empty() {
                    let text = "checksum requires exactly one source that is fetched";
                    return Err(mistake(statement, text.to_owned()));
                }
                Some(digest)
            }
        };
        let history = {
            let shown = all
                .iter()
                .chain(inline.iter().map(|(name, _)| name))
                .cloned()
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
            fetched: Default::default(),
        };
        let inputs = match &copy.from {
            Some(from) => vec![self.tree_of(planner, statement, from, number).await?],
            None => Vec::new(),
        };
        Ok((StepKind::Copy(Box::new(step)), inputs, history))
    }
}
