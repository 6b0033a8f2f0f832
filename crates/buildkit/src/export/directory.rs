//! The files of a result into a directory of the client.

use std::collections::HashMap;

use super::Export;
use crate::error::Failure;
use crate::files::send_directory;
use crate::result::Attributes;

/// Sends the files; of several platforms each into a directory of its own.
pub async fn export(
    export: &Export<'_>,
    number: usize,
    attributes: &Attributes,
) -> Result<HashMap<String, String>, Failure> {
    let step = export.job.begin("exporting to client directory");
    let work = async {
        let session = export.service.sessions.get(&export.job.request.session).await?;
        step.progress("copying files", 0, 0, false);
        let split = attributes.flag_or("platform-split", export.outcomes.len() > 1);
        let outcomes = export.outcomes.clone();
        let open = move || {
            let mut trees = Vec::new();
            for (_, outcome) in outcomes {
                let prefix = split.then(|| outcome.platform.to_string().replace('/', "_"));
                if let Some(root) = outcome.files()? {
                    trees.push((prefix, root));
                }
            }
            trees.sort_by(|a, b| a.0.cmp(&b.0));
            Ok::<_, Failure>(trees)
        };
        let trees = tokio::task::spawn_blocking(open)
            .await
            .map_err(Failure::broken)??;
        if !split && trees.len() > 1 {
            return Err(Failure::invalid(
                "platform-split=false: the files of several platforms would lie on top of each other",
            ));
        }
        send_directory(&session, number, trees).await?;
        step.progress("copying files", 0, 0, true);
        Ok(HashMap::new())
    };
    let done = work.await;
    step.end(
        done.as_ref()
            .err()
            .map(|failure: &Failure| failure.message.clone()),
    );
    done
}
