//! `userns-remap`, `userns-pool` and where subordinate ids are read.

use std::path::PathBuf;

use super::SettingsError;
use super::file::File;

/// User namespaces. What names a user must be right now: containers that were to be kept apart must not run otherwise.
pub(super) fn settings(
    file: &mut File,
    remap: Option<String>,
    pool: Option<String>,
    directory: Option<PathBuf>,
) -> Result<engine::userns::Settings, SettingsError> {
    let default = engine::userns::Settings::default();
    let directory = file.path("subid-dir", directory)?.unwrap_or(default.directory);
    let remap = file.text("userns-remap", remap)?.filter(|text| !text.is_empty());
    let remap = remap
        .map(|text| {
            engine::userns::remap(&text, &directory).map_err(|reason| SettingsError::Value {
                option: "--userns-remap",
                value: text.clone(),
                reason,
            })
        })
        .transpose()?;
    Ok(engine::userns::Settings {
        remap,
        pool: file.text("userns-pool", pool)?.unwrap_or(default.pool),
        directory,
    })
}

#[cfg(test)]
mod tests {
    use crate::options::Options;
    use crate::settings::Settings;

    #[test]
    fn a_user_to_map_to_must_have_ids() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("daemon.json");
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let load = || {
            Settings::load(Options {
                config_file: Some(file.clone()),
                ..Options::default()
            })
        };
        let line = "dockremap:100000:65536\n";
        put("subuid", line);
        let json = format!(
            r#"{{"userns-remap":"default","userns-pool":"many","subid-dir":"{}"}}"#,
            dir.path().display()
        );
        put("daemon.json", &json);
        let wrong = load().unwrap_err().to_string();
        assert!(
            wrong.contains("--userns-remap") && wrong.contains("dockremap") && wrong.contains("subgid"),
            "{wrong}"
        );
        put("subgid", line);
        let settings = load().unwrap();
        assert_eq!(settings.userns.pool, "many");
        let maps = settings.userns.remap.clone().unwrap();
        assert_eq!(maps.uids[0].host_id, 100_000);
        put("daemon.json", "{}");
        let plain = load().unwrap();
        assert_eq!(plain.userns.remap, None);
        assert!(
            settings
                .changed_for_next_start(&plain)
                .contains(&"userns-remap, userns-pool or subid-dir")
        );
    }
}
