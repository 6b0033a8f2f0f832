//! Questions about a Dockerfile instead of a build (`--call`): answered from the text, nothing is run.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::google::protobuf::Any;
use build::BuildRequest;
use build::lint::report;
use serde_json::{Value, json};
use tonic::Code;

use super::Options;
use super::context::sources;
use crate::error::Failure;
use crate::job::Job;
use crate::service::Service;
use crate::session::Session;

const DESCRIBE: &str = "frontend.subrequests.describe";
const OUTLINE: &str = "frontend.outline";
const TARGETS: &str = "frontend.targets";
const CHECK: &str = "frontend.lint";

/// How clients know that a question is not understood.
const UNSUPPORTED: &str = "github.com/moby/buildkit/errdefs.Subrequest+json";

/// The answer to the question `id`, under the keys that clients know.
pub async fn answer(
    service: &Service,
    job: &Arc<Job>,
    session: &Session,
    options: &Options,
    id: &str,
) -> Result<HashMap<String, Vec<u8>>, Failure> {
    if !matches!(id, DESCRIBE | OUTLINE | TARGETS | CHECK) {
        let detail = Any {
            type_url: UNSUPPORTED.to_owned(),
            value: json!({"name": id}).to_string().into_bytes(),
        };
        return Err(Failure {
            code: Code::Unimplemented,
            message: format!("unsupported request {id}: {OUTLINE}, {TARGETS} and {CHECK} are answered here"),
            details: vec![detail],
        });
    }
    let mut found = HashMap::new();
    let (value, text) = match id {
        DESCRIBE => described(),
        _ => {
            let sources = sources(service, job, session, options).await?;
            let request = BuildRequest {
                dockerfile: sources.name,
                dockerfile_content: Some(sources.dockerfile),
                target: options.target.clone(),
                build_args: options.build_args.clone(),
                ..BuildRequest::new(service.empty()?)
            };
            match id {
                OUTLINE => {
                    let (source, outline) = service.builder.outline(request).await?;
                    (
                        report::outline_document(&source, &outline),
                        report::outline_text(&outline),
                    )
                }
                TARGETS => {
                    let (source, targets) = service.builder.targets(request).await?;
                    (
                        report::targets_document(&source, &targets),
                        report::targets_text(&targets),
                    )
                }
                _ => {
                    let checked = service.builder.check(request).await?;
                    let (findings, error) = (&checked.findings, checked.error.as_ref());
                    // The client ends with it.
                    let code = u8::from(error.is_some() || !findings.is_empty());
                    found.insert("result.statuscode".to_owned(), code.to_string().into_bytes());
                    (
                        report::document(&checked.source, findings, error),
                        report::text(&checked.source, findings, error),
                    )
                }
            }
        }
    };
    found.insert("result.json".to_owned(), value.to_string().into_bytes());
    found.insert("result.txt".to_owned(), text.into_bytes());
    found.insert("version".to_owned(), b"1.0.0".to_vec());
    Ok(found)
}

fn described() -> (Value, String) {
    let known = [
        (OUTLINE, "List all parameters current build target supports"),
        (TARGETS, "List all targets current build supports"),
        (CHECK, "Check the Dockerfile against the rules"),
        (DESCRIBE, "List available subrequest types"),
    ];
    let list = known.map(|(name, what)| {
        json!({"name": name, "version": "1.0.0", "type": "rpc", "description": what, "opts": null, "inputs": null,
               "metadata": [{"name": "result.json", "description": ""}, {"name": "result.txt", "description": ""}], "refs": null})
    });
    let mut text = "NAME VERSION DESCRIPTION\n".to_owned();
    for (name, what) in known {
        text.push_str(&format!("{name} 1.0.0 {what}\n"));
    }
    (json!(list), text)
}
