//! What a Dockerfile says about itself, asked with `POST /build?call=…`: one message with the text or the document, then
//! how many findings there are.

use api_types::ProgressMessage;
use axum::response::Response;
use build::lint::report;
use build::{BuildRequest, Builder};
use serde_json::{Value, json};

use super::options::{Call, CallKind};
use crate::answer::stream_job;
use crate::error::{ApiError, Result};

/// Answers `call`.
pub async fn answer(builder: &Builder, call: Call, request: BuildRequest) -> Result<Response> {
    let (text, document, found) = ask(builder, call.kind, request)
        .await
        .map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    let said = match call.json {
        true => format!("{document:#}\n"),
        false => text,
    };
    stream_job(move |lines| async move {
        lines.send(ProgressMessage::stream(said)).await;
        lines.send(ProgressMessage::aux(json!({"Findings": found}))).await;
        Ok(())
    })
    .await
}

/// The answer as text and as a document, and the number of findings.
async fn ask(
    builder: &Builder,
    kind: CallKind,
    request: BuildRequest,
) -> std::result::Result<(String, Value, usize), build::BuildError> {
    Ok(match kind {
        CallKind::Check => {
            let checked = builder.check(request).await?;
            let error = checked.error.as_ref();
            let found = checked.findings.len() + usize::from(error.is_some());
            let verdict = match found {
                0 => "Check complete, no warnings found.\n".to_owned(),
                1 => "Check complete, 1 warning has been found!\n".to_owned(),
                _ => format!("Check complete, {found} warnings have been found!\n"),
            };
            let text = report::text(&checked.source, &checked.findings, error);
            let document = report::document(&checked.source, &checked.findings, error);
            (format!("{text}{verdict}"), document, found)
        }
        CallKind::Outline => {
            let (source, outline) = builder.outline(request).await?;
            let document = report::outline_document(&source, &outline);
            (report::outline_text(&outline), document, 0)
        }
        CallKind::Targets => {
            let (source, targets) = builder.targets(request).await?;
            let document = report::targets_document(&source, &targets);
            (report::targets_text(&targets), document, 0)
        }
    })
}
