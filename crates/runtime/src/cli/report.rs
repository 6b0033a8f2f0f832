//! `state`, `list`, `ps`, `spec`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::arguments::Format;
use super::error::CliError;
use super::output::{self, document, wrong};
use super::state::Containers;
use crate::template;

pub(super) fn state(containers: &Containers, id: &str) -> Result<i32, CliError> {
    let record = containers.load(id)?;
    let state = containers.state(&record);
    let mut value = serde_json::to_value(&state).map_err(wrong)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("rootfs".to_owned(), json!(record.rootfs));
        fields.insert("created".to_owned(), json!(record.created));
        fields.insert("owner".to_owned(), json!(containers.owner(&record.id)));
    }
    output::line(&document(&value)?)?;
    Ok(0)
}

pub(super) fn list(containers: &Containers, format: Format, quiet: bool) -> Result<i32, CliError> {
    let records = containers.all()?;
    if quiet {
        records.iter().try_for_each(|record| output::line(&record.id))?;
        return Ok(0);
    }
    if format == Format::Json {
        let list: Vec<_> = records
            .iter()
            .map(|record| {
                let state = containers.state(record);
                json!({
                    "ociVersion": state.oci_version, "id": state.id, "pid": state.pid, "status": state.status,
                    "bundle": state.bundle, "rootfs": record.rootfs, "created": record.created,
                    "annotations": state.annotations, "owner": containers.owner(&record.id),
                })
            })
            .collect();
        output::line(&serde_json::Value::from(list).to_string())?;
        return Ok(0);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for record in &records {
        let state = containers.state(record);
        rows.push([
            state.id,
            state.pid.unwrap_or(0).to_string(),
            state.status.to_string(),
            state.bundle.display().to_string(),
            record.created.clone(),
            containers.owner(&record.id),
        ]);
    }
    output::line(&table(&rows))?;
    Ok(0)
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn ps(
    containers: &Containers,
    id: &str,
    format: Format,
    options: &[String],
) -> Result<i32, CliError> {
    let pids = containers.load(id)?.cgroup()?.pids()?;
    if format == Format::Json {
        output::line(&json!(pids).to_string())?;
        return Ok(0);
    }
    let usual = ["-ef".to_owned()];
    let chosen = if options.is_empty() { &usual[..] } else { options };
    if !options.is_empty() || has_ps() {
        return ps_of_the_host(&pids, chosen);
    }
    let mut rows = vec![["PID", "COMMAND"].map(str::to_owned)];
    for pid in pids {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&line).replace('\0', " ");
        rows.push([pid.to_string(), command.trim_end().to_owned()]);
    }
    output::line(&table(&rows))?;
    Ok(0)
}

/// Whether the host has the ps(1) whose options are asked for, and no smaller one.
fn has_ps() -> bool {
    let called = Command::new("ps").arg("-V").output();
    called.is_ok_and(|output| output.status.success())
}

/// Columns by the user's choice: those lines of the host's ps(1) that are of the container.
fn ps_of_the_host(pids: &[i32], options: &[String]) -> Result<i32, CliError> {
    let output = Command::new("ps")
        .args(options)
        .output()
        .map_err(|error| CliError::io("ps (needed for its options)", error))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(CliError::Usage(format!("ps: {}", complaint.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|title| title == "PID") else {
        return Err(CliError::Usage(
            "ps: the options must show a column PID".to_owned(),
        ));
    };
    output::line(head)?;
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            output::line(line)?;
        }
    }
    Ok(0)
}

pub(super) fn spec(bundle: Option<&Path>, rootless: bool) -> Result<i32, CliError> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    let spec = if rootless {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        template::rootless_spec(uid.as_raw(), gid.as_raw())
    } else {
        template::spec()
    };
    let text = document(&spec)?;
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| CliError::io(&path.display().to_string(), error))?;
    Ok(0)
}
