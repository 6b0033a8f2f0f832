//! `--change` of commit and import: instructions that change only the configuration.

use spec::image::ContainerSettings;

use crate::error::BuildError;
use crate::instruction::{Instruction, Statement, read_all};
use crate::parse::parse;
use crate::plan::{apply, env_value};

/// Applies `changes`, each a line of a Dockerfile, to `settings`.
pub fn apply_changes(settings: &mut ContainerSettings, changes: &[String]) -> Result<(), BuildError> {
    if changes.iter().all(|change| change.trim().is_empty()) {
        return Ok(());
    }
    let file = parse("changes", changes.join("\n").as_bytes())?;
    let mut cmd_set = false;
    for statement in read_all(&file)? {
        if !may_change(&statement) {
            let keyword = statement.code.split_whitespace().next().unwrap_or_default();
            let text = format!("{} is not a valid change command", keyword.to_ascii_lowercase());
            return Err(BuildError::invalid(text));
        }
        let env = settings.env.clone();
        let variables = move |name: &str| env_value(&env, name).map(str::to_owned);
        apply(settings, &mut cmd_set, &statement, &variables)?;
    }
    Ok(())
}

fn may_change(statement: &Statement) -> bool {
    matches!(
        statement.instruction,
        Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::Healthcheck(_)
            | Instruction::Env(_)
            | Instruction::Expose(_)
            | Instruction::Label(_)
            | Instruction::Onbuild(_)
            | Instruction::Stopsignal(_)
            | Instruction::User(_)
            | Instruction::Volume(_)
            | Instruction::Workdir(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_only() {
        let mut settings = ContainerSettings::default();
        let changes = [
            "ENV A=1".to_owned(),
            "CMD [\"sh\"]".to_owned(),
            "WORKDIR x".to_owned(),
        ];
        apply_changes(&mut settings, &changes).unwrap();
        assert_eq!(
            (settings.env, settings.working_dir.as_str()),
            (vec!["A=1".to_owned()], "/x")
        );
        assert_eq!(settings.cmd.unwrap(), ["sh"]);
        let mut settings = ContainerSettings::default();
        let error = apply_changes(&mut settings, &["RUN x".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "run is not a valid change command");
        assert!(apply_changes(&mut settings, &["FOO x".to_owned()]).is_err());
    }
}
