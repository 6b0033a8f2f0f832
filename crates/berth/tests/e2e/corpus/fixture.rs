//! What a case is built from: its files in a directory, on the web server and in a repository.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::case::{Case, File};
use super::host;
use crate::web::{Page, Web};

/// The place of one case; it goes with the daemon's directory.
pub struct Fixture {
    pub context: PathBuf,
    /// For whoever checks the image.
    pub room: PathBuf,
    address: String,
    /// Below which the server has this case's files.
    prefix: String,
}

impl Fixture {
    pub fn make(dir: &Path, web: &Web, case: &Case) -> Fixture {
        let room = dir.join("cases").join(&case.name);
        let fixture = Fixture {
            // One name for all: clients of BuildKit name a directory by its last part, and must not be given another's files.
            context: room.join("context"),
            address: web.address.clone(),
            prefix: case.name.clone(),
            room,
        };
        let (served, repository) = (fixture.room.join("served"), fixture.room.join("repository"));
        for dir in [&fixture.context, &served, &repository] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for file in &case.files {
            match file.path.split_once('/') {
                Some(("web", path)) => fixture.write(&served, path, file),
                Some(("git", path)) => fixture.write(&repository, path, file),
                _ => fixture.write(&fixture.context, &file.path, file),
            }
        }
        if case.files.iter().any(|file| file.path.starts_with("git/")) {
            publish(&repository, &served.join("repo.git"));
        }
        fixture.serve(web, &served, "");
        fixture
    }

    /// The text with its placeholders filled in.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{web}", &format!("http://{}/{}", self.address, self.prefix))
            .replace("{registry}", &self.address)
            .replace("{dir}", &self.context.display().to_string())
    }

    fn write(&self, root: &Path, path: &str, file: &File) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(goal) = file.option.strip_prefix("-> ") {
            symlink(goal, &path).unwrap();
            return;
        }
        if let Some(same) = file.option.strip_prefix("= ") {
            std::fs::copy(root.join(same), &path).unwrap();
            return;
        }
        let content = self.fill(&file.content);
        // The empty line before the next case is not the file's.
        match file.option.as_str() {
            "tar" => return archive(&path, &content),
            "crlf" => std::fs::write(&path, content.replace('\n', "\r\n")).unwrap(),
            "bom" => std::fs::write(&path, format!("\u{feff}{content}")).unwrap(),
            _ => std::fs::write(&path, content).unwrap(),
        }
        let mode = u32::from_str_radix(&file.option, 8).unwrap_or(0o644);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn serve(&self, web: &Web, dir: &Path, below: &str) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = format!("{below}/{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => self.serve(web, &entry.path(), &name),
                false => web.put(
                    &format!("/{}{name}", self.prefix),
                    Page::of(std::fs::read(entry.path()).unwrap()),
                ),
            }
        }
    }
}

/// An archive of files `name=content`.
fn archive(path: &Path, lines: &str) {
    let tree = path.with_extension("tree");
    for (name, content) in lines.lines().filter_map(|line| line.split_once('=')) {
        let file = tree.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
    }
    let (path_text, tree_text) = (path.display().to_string(), tree.display().to_string());
    let args = [
        "--owner=0",
        "--group=0",
        "--mode=u=rwX,go=rX",
        "-caf",
        &path_text,
        "-C",
        &tree_text,
        ".",
    ];
    host("tar", &args, path.parent().unwrap());
    std::fs::remove_dir_all(&tree).unwrap();
}

/// A repository with these files, as a server of plain files has it.
fn publish(files: &Path, bare: &Path) {
    let name = ["-c", "user.name=n", "-c", "user.email=e@e"];
    host("git", &["init", "--quiet", "--initial-branch=main"], files);
    host("git", &["add", "--all"], files);
    host(
        "git",
        &[&name[..], &["commit", "--quiet", "-m", "one"]].concat(),
        files,
    );
    let (from, to) = (files.display().to_string(), bare.display().to_string());
    host("git", &["clone", "--quiet", "--bare", &from, &to], files);
    host("git", &["update-server-info"], bare);
}
