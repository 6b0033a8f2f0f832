//! Questions about a Dockerfile instead of a build (`--call`): answered from the text, nothing is run.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Any;
use build::{BuildRequest, Outline, Prepared, Snippet, Taken, Target};
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
    if !matches!(id, DESCRIBE | OUTLINE | TARGETS) {
        let detail = Any {
            type_url: UNSUPPORTED.to_owned(),
            value: json!({"name": id}).to_string().into_bytes(),
        };
        return Err(Failure {
            code: Code::Unimplemented,
            message: format!("unsupported request {id}: {OUTLINE} and {TARGETS} are answered here"),
            details: vec![detail],
        });
    }
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
            let prepared = service.builder.prepare(request).await?;
            match id {
                OUTLINE => outline(&prepared),
                _ => targets(&prepared),
            }
        }
    };
    Ok(HashMap::from([
        ("result.json".to_owned(), value.to_string().into_bytes()),
        ("result.txt".to_owned(), text.into_bytes()),
        ("version".to_owned(), b"1.0.0".to_vec()),
    ]))
}

fn described() -> (Value, String) {
    let known = [
        (OUTLINE, "List all parameters current build target supports"),
        (TARGETS, "List all targets current build supports"),
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

fn location(at: &Snippet) -> Value {
    json!({"ranges": [{"start": {"line": at.line()}, "end": {"line": at.last_line()}}]})
}

fn text_of(prepared: &Prepared) -> Value {
    json!([STANDARD.encode(prepared.text())])
}

fn targets(prepared: &Prepared) -> (Value, String) {
    let mut text = "TARGET DESCRIPTION\n".to_owned();
    let shown = |target: &Target| match (target.name.as_str(), target.default) {
        ("", true) => "(default)".to_owned(),
        (name, true) => format!("{name} (default)"),
        (name, false) => name.to_owned(),
    };
    let list = prepared.targets();
    for target in &list {
        text.push_str(&format!("{} {}\n", shown(target), target.description));
    }
    let list: Vec<Value> = list
        .iter()
        .map(|target| {
            json!({"name": target.name, "default": target.default, "description": target.description,
                   "base": target.base, "platform": target.platform, "location": location(&target.at)})
        })
        .collect();
    (json!({"targets": list, "sources": text_of(prepared)}), text)
}

fn outline(prepared: &Prepared) -> (Value, String) {
    let Outline {
        name,
        description,
        arguments,
        secrets,
        agents,
        caches,
    } = prepared.outline();
    let list = |taken: &[Taken]| -> Vec<Value> {
        let one = |taken: &Taken| {
            json!({"name": taken.name, "description": taken.description, "value": taken.value.clone().unwrap_or_default(),
                   "required": taken.required, "location": location(&taken.at)})
        };
        taken.iter().map(one).collect()
    };
    let kept: Vec<Value> = caches
        .iter()
        .map(|cache| json!({"ID": cache.name, "location": location(&cache.at)}))
        .collect();
    let mut text = format!(
        "TARGET: {}\n",
        if name.is_empty() {
            "(default)"
        } else {
            name.as_str()
        }
    );
    for (what, taken) in [("BUILD ARG", &arguments), ("SECRET", &secrets), ("SSH", &agents)] {
        for one in taken {
            text.push_str(&format!(
                "{what} {} {} {}\n",
                one.name,
                one.value.as_deref().unwrap_or_default(),
                one.description
            ));
        }
    }
    let value = json!({"name": name, "description": description, "args": list(&arguments), "secrets": list(&secrets),
                       "ssh": list(&agents), "cache": kept, "sources": text_of(prepared)});
    (value, text)
}
