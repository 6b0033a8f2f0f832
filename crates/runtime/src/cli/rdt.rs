//! `linux.intelRdt`: classes of cache and memory bandwidth (resctrl), directories of a filesystem of the kernel's.
//!
//! A class that this runtime makes for a container alone goes with it; one that has a name of its own (`closID`) stays,
//! whoever made it. The process is moved in before its program begins, and what it makes is born there.
//!
//! Sources: OCI runtime-spec config-linux.md "IntelRdt"; Linux Documentation/filesystems/resctrl.rst.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spec::runtime::IntelRdt;

use super::error::CliError;
use crate::LaunchError;
use crate::error::reason;

const FIELD: &str = "linux.intelRdt";
/// The closID of the class that every process is in.
const DEFAULT: &str = "/";

/// Where a container's process belongs. Dropped without [`Class::keep`] what was made for it goes.
#[derive(Debug)]
pub(super) struct Class {
    directory: PathBuf,
    /// For counting what the container alone uses.
    monitor: Option<PathBuf>,
    made: Vec<PathBuf>,
    /// The configuration gives the class a name, by which it outlives the container.
    named: bool,
}

/// Where the kernel has the filesystem; an error that says so where it does not.
pub(super) fn root() -> Result<PathBuf, CliError> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = table.lines().find_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        filesystem
            .starts_with("resctrl ")
            .then(|| place.split(' ').nth(4))?
    });
    mounted.map(PathBuf::from).ok_or_else(|| {
        let why = match fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("resctrl")) {
            true => "resctrl is not mounted (mount -t resctrl resctrl /sys/fs/resctrl)",
            false => "this kernel or processor has no classes of cache and memory bandwidth (resctrl)",
        };
        LaunchError::Unsupported(format!("{FIELD}: {why}")).into()
    })
}

impl Class {
    /// Makes or takes the class that the configuration names, with its schemata.
    pub fn make(root: &Path, id: &str, asked: &IntelRdt) -> Result<Class, CliError> {
        let name = named(asked).unwrap_or(id);
        let directory = if name == DEFAULT {
            root.to_owned()
        } else {
            root.join(name)
        };
        let lines = schemata(asked);
        let mut class = Class {
            monitor: None,
            made: Vec::new(),
            directory,
            named: named(asked).is_some(),
        };
        if class.directory.is_dir() {
            if !class.named {
                return Err(invalid(format!(
                    "{FIELD}: the class {name:?} is there already: name it by closID"
                )));
            }
            class.compare(&lines)?;
        } else {
            if class.named && lines.is_empty() {
                return Err(invalid(format!(
                    "{FIELD}.closID: there is no class {name:?}, and no schema to make it with"
                )));
            }
            class.add(class.directory.clone())?;
            write_schemata(&class.directory, &lines)?;
        }
        if asked.enable_monitoring || asked.enable_cmt || asked.enable_mbm {
            let monitor = class.directory.join("mon_groups").join(id);
            class.add(monitor.clone())?;
            class.monitor = Some(monitor);
        }
        Ok(class)
    }

    fn add(&mut self, directory: PathBuf) -> Result<(), CliError> {
        fs::create_dir(&directory).map_err(|error| failed(&directory, &error, ""))?;
        self.made.push(directory);
        Ok(())
    }

    /// A class that others use as well must be what this container asks for.
    fn compare(&self, lines: &[String]) -> Result<(), CliError> {
        let file = self.directory.join("schemata");
        let text = fs::read_to_string(&file).map_err(|error| failed(&file, &error, ""))?;
        let there: Vec<&str> = text.lines().map(str::trim).collect();
        match lines.iter().find(|line| !there.contains(&line.as_str())) {
            None => Ok(()),
            Some(line) => Err(invalid(format!(
                "{FIELD}: {} is there already and has no line {line:?}",
                file.display()
            ))),
        }
    }

    /// Where the container's processes belong.
    pub fn directories(&self) -> Vec<PathBuf> {
        std::iter::once(self.directory.clone())
            .chain(self.monitor.clone())
            .collect()
    }

    /// What is to be removed with the container.
    pub fn goes(&self) -> Vec<PathBuf> {
        let stays = |directory: &&PathBuf| self.named && **directory == self.directory;
        let made = self.made.iter();
        made.filter(|directory| !stays(directory)).cloned().collect()
    }

    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        // What has failed before is what is told.
        let _ = remove(&self.made);
    }
}

/// Whether a configuration makes sense. Nothing of the host is asked.
pub(super) fn check(asked: &IntelRdt) -> Result<(), CliError> {
    let plain = |name: &str| name != "." && name != ".." && !name.contains(['/', '\0']);
    if let Some(name) = named(asked).filter(|name| *name != DEFAULT && !plain(name)) {
        return Err(invalid(format!(
            "{FIELD}.closID: {name:?} is not the name of a class"
        )));
    }
    let bandwidth = asked.mem_bw_schema.as_deref().unwrap_or_default();
    if !bandwidth.is_empty() && !bandwidth.starts_with("MB:") {
        let text = format!("{FIELD}.memBwSchema: {bandwidth:?} does not begin with MB:");
        return Err(invalid(text));
    }
    let lines = asked.schemata.iter().enumerate();
    let lines = lines.map(|(index, line)| (format!("schemata[{index}]"), line.as_str()));
    for (field, line) in lines.chain([("memBwSchema".to_owned(), bandwidth)]) {
        if line.contains('\n') {
            return Err(invalid(format!(
                "{FIELD}.{field}: {line:?} is more than one line"
            )));
        }
    }
    Ok(())
}

/// The name that a configuration gives the class; an empty one is none.
fn named(asked: &IntelRdt) -> Option<&str> {
    asked.clos_id.as_deref().filter(|name| !name.is_empty())
}

/// Moves a process in, and what it makes from now on.
pub(super) fn enter(directories: &[PathBuf], pid: u32) -> Result<(), CliError> {
    for directory in directories {
        let file = directory.join("tasks");
        fs::write(&file, pid.to_string()).map_err(|error| failed(&file, &error, ""))?;
    }
    Ok(())
}

/// Gives the class of a container that lives other lines.
pub(super) fn change(classed: &[PathBuf], asked: &IntelRdt) -> Result<(), CliError> {
    check(asked)?;
    match classed.first() {
        Some(directory) => write_schemata(directory, &schemata(asked)),
        None => Err(invalid(format!("{FIELD}: the container has no class to change"))),
    }
}

fn write_schemata(directory: &Path, lines: &[String]) -> Result<(), CliError> {
    if lines.is_empty() {
        return Ok(());
    }
    let file = directory.join("schemata");
    fs::write(&file, format!("{}\n", lines.join("\n"))).map_err(|error| {
        // The filesystem's root has the kernel's words.
        let status = directory
            .ancestors()
            .map(|above| above.join("info/last_cmd_status"));
        let told = status.filter_map(|path| fs::read_to_string(path).ok()).next();
        failed(&file, &error, told.unwrap_or_default().trim())
    })
}

/// Removes what was made for a container; what is gone already is a success.
pub(super) fn remove(made: &[PathBuf]) -> Result<(), CliError> {
    for directory in made.iter().rev() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(directory, &error, ""));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The lines to write: bandwidth has one place, and `memBwSchema` is the one that counts.
fn schemata(asked: &IntelRdt) -> Vec<String> {
    let bandwidth = asked.mem_bw_schema.as_deref().unwrap_or_default();
    let cache = asked.l3_cache_schema.as_deref().unwrap_or_default();
    let cache = cache
        .lines()
        .filter(|line| bandwidth.is_empty() || !line.trim().starts_with("MB:"));
    let further = asked.schemata.iter().flat_map(|line| line.lines());
    let all = cache.chain(bandwidth.lines()).chain(further).map(str::trim);
    all.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn invalid(text: String) -> CliError {
    LaunchError::Invalid(text).into()
}

fn failed(path: &Path, error: &io::Error, told: &str) -> CliError {
    let kernel = match told {
        "" | "ok" => String::new(),
        told => format!(" (the kernel says: {told})"),
    };
    CliError::Io {
        what: format!("{FIELD}: {}", path.display()),
        reason: format!("{}{kernel}", reason(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like the kernel's, whose files are plain ones.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("shared/mon_groups")).unwrap();
        fs::write(root.path().join("schemata"), "").unwrap();
        fs::write(root.path().join("shared/schemata"), "    MB:0=50\n    L3:0=f\n").unwrap();
        root
    }

    fn asked(clos_id: Option<&str>, l3: &str, bandwidth: &str) -> IntelRdt {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        IntelRdt {
            clos_id: clos_id.map(str::to_owned),
            l3_cache_schema: some(l3),
            mem_bw_schema: some(bandwidth),
            ..IntelRdt::default()
        }
    }

    #[test]
    fn a_class_of_its_own_goes_with_the_container() {
        let root = root();
        let directory = root.path().join("web");
        let class = Class::make(root.path(), "web", &asked(None, "L3:0=f\nMB:0=10", "MB:0=20")).unwrap();
        assert_eq!(
            fs::read_to_string(directory.join("schemata")).unwrap(),
            "L3:0=f\nMB:0=20\n"
        );
        enter(&class.directories(), 77).unwrap();
        assert_eq!(fs::read_to_string(directory.join("tasks")).unwrap(), "77");
        let made = class.goes();
        change(&class.directories(), &asked(None, "", "MB:0=30")).unwrap();
        assert_eq!(
            fs::read_to_string(directory.join("schemata")).unwrap(),
            "MB:0=30\n"
        );
        class.keep();
        assert!(directory.is_dir() && made == [directory.clone()]);
        // The kernel's directories go with their files.
        fs::remove_file(directory.join("schemata")).unwrap();
        fs::remove_file(directory.join("tasks")).unwrap();
        remove(&made).unwrap();
        remove(&made).unwrap();
        assert!(!directory.exists());
        // One that fails later leaves nothing.
        drop(Class::make(root.path(), "web", &asked(None, "", "")).unwrap());
        assert!(!directory.exists());
    }

    #[test]
    fn a_class_that_is_there_is_taken_as_it_is() {
        let root = root();
        let mut wanted = asked(Some("shared"), "L3:0=f", "");
        wanted.enable_monitoring = true;
        let class = Class::make(root.path(), "web", &wanted).unwrap();
        let monitor = root.path().join("shared/mon_groups/web");
        assert_eq!(class.goes(), std::slice::from_ref(&monitor));
        enter(&class.directories(), 5).unwrap();
        assert_eq!(fs::read_to_string(monitor.join("tasks")).unwrap(), "5");
        drop(Class::make(root.path(), "b", &asked(Some("shared"), "", "")).unwrap());
        assert!(root.path().join("shared/schemata").exists());
        drop(Class::make(root.path(), "b", &asked(Some("/"), "", "")).unwrap());
        assert!(root.path().is_dir());
    }

    /// Whoever made it: others may have come to rely on the name.
    #[test]
    fn a_class_with_a_name_outlives_its_container() {
        let root = root();
        let named = asked(Some("gold"), "L3:0=f", "");
        let class = Class::make(root.path(), "web", &named).unwrap();
        assert_eq!(class.goes(), Vec::<PathBuf>::new());
        class.keep();
        assert!(root.path().join("gold/schemata").exists());
        // The next one takes it, and so does a container whose configuration says nothing but the name.
        let class = Class::make(root.path(), "db", &asked(Some("gold"), "", "")).unwrap();
        assert_eq!(class.directories(), [root.path().join("gold")]);
        // An empty name is none.
        let class = Class::make(root.path(), "other", &asked(Some(""), "", "")).unwrap();
        assert_eq!(class.goes(), [root.path().join("other")]);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        let root = root();
        let told = |asked: &IntelRdt| {
            let made = check(asked).and_then(|()| Class::make(root.path(), "web", asked).map(drop));
            made.unwrap_err().to_string()
        };
        assert!(told(&asked(Some("../up"), "L3:0=f", "")).contains("linux.intelRdt.closID: \"../up\""));
        assert!(told(&asked(None, "", "0=20")).contains("linux.intelRdt.memBwSchema: "));
        assert!(told(&asked(None, "", "MB:0=20\nL3:0=f")).contains("more than one line"));
        assert!(told(&asked(Some("other"), "", "")).contains("no class \"other\""));
        assert!(told(&asked(Some("shared"), "L3:0=ff", "")).contains("no line \"L3:0=ff\""));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing was made");
    }
}
