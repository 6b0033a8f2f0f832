//! What comes of a build, and what its client shows.

use super::{files_with, lab};
use crate::support::{retry, text};

const TWO_STAGES: &str = "FROM box:1 AS one\nARG WORD=none\nRUN echo built $WORD > /built; echo said\nFROM box:1\n\
                          COPY --from=one /built /built\nCOPY file /file\nENV A=b\n\
                          CMD [\"sh\", \"-c\", \"cat /built /file; echo $A\"]\n";

#[test]
fn a_build_shows_its_steps_and_finds_the_cache() {
    let lab = lab!();
    lab.write("file", "copied\n");
    lab.write("Dockerfile", TWO_STAGES);
    let args = [
        "build",
        "-t",
        "app:1",
        "--build-arg",
        "WORD=x",
        "--label",
        "l=v",
        "--iidfile",
        "../iid",
        ".",
    ];
    let (_, shown) = lab.ok(&args);
    for line in [
        "[internal] load build definition from Dockerfile",
        "[internal] load metadata for docker.io/library/box:1",
        "[internal] load build context",
        "[one 2/2] RUN echo built $WORD > /built; echo said",
        "said",
        "[stage-1 2/3] COPY --from=one /built /built",
        "[stage-1 3/3] COPY file /file",
        "exporting to image",
        "naming to docker.io/library/app:1",
    ] {
        assert!(shown.contains(line), "{line:?} is not in:\n{shown}");
    }
    assert!(!shown.contains("CACHED"), "{shown}");
    assert_eq!(lab.run_image("app:1", &[]), "built x\ncopied\nb\n");
    let id = lab.daemon.ok(&["inspect", "-f", "{{.Id}}", "app:1"]);
    let told = std::fs::read_to_string(lab.daemon.dir.path().join("iid")).unwrap();
    assert_eq!(told.trim(), id.trim());
    let label = lab
        .daemon
        .ok(&["inspect", "-f", "{{index .Config.Labels \"l\"}}", "app:1"]);
    assert_eq!(label, "v\n");
    let (_, shown) = lab.ok(&args);
    assert_eq!(shown.matches("CACHED").count(), 3, "{shown}");
    assert_eq!(lab.daemon.ok(&["inspect", "-f", "{{.Id}}", "app:1"]), id);
    let (_, shown) = lab.ok(&["build", "--no-cache-filter", "one", "--build-arg", "WORD=x", "."]);
    let made = shown.split("[one 2/2]").nth(1).unwrap();
    assert!(!made.lines().nth(1).unwrap().contains("CACHED"), "{shown}");
}

#[test]
fn failures_point_to_the_dockerfile() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nRUN echo before\nRUN echo why >&2; exit 9\n",
    );
    let (code, shown) = lab.fails(&["build", "."]);
    assert_eq!(code, 1);
    assert!(shown.contains("Dockerfile:3"), "{shown}");
    assert!(shown.contains(">>> RUN echo why >&2; exit 9"), "{shown}");
    assert!(
        shown.contains("did not complete successfully: exit code: 9"),
        "{shown}"
    );
    lab.write("Dockerfile", "FROM box:1\nCOPPY a b\n");
    let (_, shown) = lab.fails(&["build", "."]);
    assert!(
        shown.contains("unknown instruction: COPPY") && shown.contains("Dockerfile:2"),
        "{shown}"
    );
    lab.write("Dockerfile", "FROM box:1\nCOPY nothing /\n");
    let (_, shown) = lab.fails(&["build", "."]);
    assert!(
        shown.contains("nothing") && shown.contains(">>> COPY nothing /"),
        "{shown}"
    );
    let (_, shown) = lab.fails(&["build", "-f", "Other", "."]);
    assert!(shown.contains("Other"), "{shown}");
    lab.write("Dockerfile", TWO_STAGES);
    let (_, shown) = lab.fails(&["build", "--target", "three", "."]);
    assert!(
        shown.contains("target stage \"three\" could not be found"),
        "{shown}"
    );
}

#[test]
fn secrets_leave_no_trace() {
    let lab = lab!();
    lab.write(
        "Dockerfile",
        "FROM box:1\nRUN --mount=type=secret,id=s,required wc -c < /run/secrets/s > /size\n",
    );
    let secret = "never-to-be-seen-1f9b";
    let file = lab.daemon.dir.path().join("secret");
    std::fs::write(&file, secret).unwrap();
    let (_, shown) = lab.fails(&["build", "."]);
    assert!(shown.contains("secret s: not found"), "{shown}");
    let given = format!("id=s,src={}", file.display());
    let (_, shown) = lab.ok(&["build", "-t", "kept:1", "--secret", &given, "."]);
    assert!(!shown.contains(secret));
    assert_eq!(
        lab.run_image("kept:1", &["cat", "/size"]).trim(),
        secret.len().to_string()
    );
    let found = files_with(&lab.daemon.dir.path().join("root"), secret.as_bytes());
    assert!(found.is_empty(), "the secret is in {found:?}");
}

#[test]
fn outputs_reach_the_client() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM scratch\nCOPY tree /\n");
    lab.write("tree/a/file", "one");
    lab.write("tree/empty/.keep", "");
    std::os::unix::fs::symlink("a/file", lab.context().join("tree/link")).unwrap();
    lab.ok(&["build", "-o", "type=local,dest=../out", "."]);
    let out = lab.daemon.dir.path().join("out");
    assert_eq!(std::fs::read_to_string(out.join("a/file")).unwrap(), "one");
    assert_eq!(
        std::fs::read_link(out.join("link")).unwrap().to_str(),
        Some("a/file")
    );
    lab.ok(&["build", "-o", "type=tar,dest=../out.tar", "."]);
    let listed = std::process::Command::new("tar")
        .arg("-tf")
        .arg(lab.daemon.dir.path().join("out.tar"))
        .output();
    assert!(text(&listed.unwrap().stdout).contains("a/file"));
    for (kind, name) in [("docker", "loaded:1"), ("oci", "loaded:2")] {
        let archive = lab.daemon.dir.path().join(format!("{kind}.tar"));
        let output = format!("type={kind},dest={}", archive.display());
        lab.ok(&["build", "-t", name, "-o", &output, "."]);
        lab.daemon.fails(&["inspect", name]);
        lab.daemon.ok(&["load", "-i", archive.to_str().unwrap()]);
        lab.daemon.ok(&["inspect", name]);
    }
}

#[test]
fn a_build_that_is_given_up_leaves_nothing() {
    let lab = lab!();
    // A number that no other process has in its command line.
    let mark = format!("3600.{}", std::process::id());
    lab.write(
        "Dockerfile",
        &format!("FROM box:1\nRUN echo began; sleep {mark}\n"),
    );
    let mut child = lab
        .command(&["build", "."])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let running = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines =
            processes.map(|process| std::fs::read(process.path().join("cmdline")).unwrap_or_default());
        lines.filter(|line| text(line).contains(&mark)).count()
    };
    let patient = |wanted: &dyn Fn() -> bool| retry(|| wanted().then_some(())).is_some();
    assert!(
        patient(&|| running() > 0),
        "the step did not begin:\n{}",
        lab.daemon.log()
    );
    // As Ctrl-C does.
    std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(
        patient(&|| running() == 0),
        "the step goes on:\n{}",
        lab.daemon.log()
    );
    lab.write("Dockerfile", "FROM box:1\nRUN echo again\n");
    lab.ok(&["build", "."]);
}

#[test]
fn compose_and_bake_build() {
    let lab = lab!();
    lab.write("file", "copied\n");
    lab.write("Dockerfile", TWO_STAGES);
    lab.write(
        "compose.yaml",
        "services:\n  one:\n    image: composed:1\n    build:\n      context: .\n      args:\n        WORD: compose\n",
    );
    lab.ok(&["compose", "build"]);
    assert_eq!(lab.run_image("composed:1", &[]), "built compose\ncopied\nb\n");
    lab.write("Second", "FROM first\nRUN cat /file > /second\n");
    lab.write(
        "docker-bake.hcl",
        "group \"default\" { targets = [\"second\"] }\n\
         target \"first\" { args = { WORD = \"bake\" } }\n\
         target \"second\" {\n  dockerfile = \"Second\"\n  contexts = { first = \"target:first\" }\n  tags = [\"baked:1\"]\n}\n",
    );
    lab.ok(&["buildx", "bake"]);
    assert_eq!(
        lab.run_image("baked:1", &["cat", "/built", "/second"]),
        "built bake\ncopied\n"
    );
}

#[test]
fn an_image_is_written_into_a_directory_in_ocis_layout() {
    let lab = lab!();
    lab.write("Dockerfile", TWO_STAGES);
    lab.write("file", "copied\n");
    let out = lab.daemon.dir.path().join("layout");
    let output = format!("type=oci,dest={},tar=false", out.display());
    for _ in 0..2 {
        lab.ok(&["buildx", "build", "--provenance=false", "-o", &output, "."]);
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("index.json")).unwrap()).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 1, "{index}");
        let blob = |digest: &serde_json::Value| {
            let hex = digest
                .as_str()
                .unwrap()
                .strip_prefix("sha256:")
                .unwrap()
                .to_owned();
            std::fs::read(out.join("blobs/sha256").join(hex)).unwrap()
        };
        let manifest: serde_json::Value = serde_json::from_slice(&blob(&manifests[0]["digest"])).unwrap();
        assert!(!blob(&manifest["config"]["digest"]).is_empty());
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(
                blob(&layer["digest"]).len() as u64,
                layer["size"].as_u64().unwrap()
            );
        }
    }
    // As an archive it is an image like any other.
    let archive = lab.daemon.dir.path().join("layout.tar");
    let packed = std::process::Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&out)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    lab.daemon.ok(&["load", "-i", &archive.display().to_string()]);
}

#[test]
fn the_cache_and_the_builds_of_late_are_listed() {
    let mut lab = lab!();
    lab.write("file", "copied\n");
    lab.write("Dockerfile", TWO_STAGES);
    lab.ok(&["build", "."]);
    lab.write("Failing", "FROM box:1\nRUN exit 4\n");
    lab.fails(&["build", "-f", "Failing", "."]);
    let (used, _) = lab.ok(&["buildx", "du", "--verbose"]);
    assert!(
        used.contains("RUN echo built") && used.contains("source.local"),
        "{used}"
    );
    for _ in 0..2 {
        let (builds, _) = lab.ok(&["buildx", "history", "ls"]);
        assert!(
            builds.contains("Completed") && builds.contains("Error"),
            "{builds}"
        );
        let (_, logs) = lab.ok(&["buildx", "history", "logs", "--progress", "plain"]);
        assert!(logs.contains("RUN exit 4"), "{logs}");
        // The next daemon knows them, too.
        lab.daemon.crash_and_restart();
    }
    lab.ok(&["buildx", "prune", "-af"]);
    let (used, _) = lab.ok(&["buildx", "du", "--verbose"]);
    assert!(
        !used.contains("RUN echo built") && !used.contains("source.local"),
        "{used}"
    );
    let (workers, _) = lab.ok(&["buildx", "inspect"]);
    assert!(workers.contains("linux/"), "{workers}");
}

/// What is to be kept is kept, and nothing goes for room that is there.
#[test]
fn the_cache_is_pruned_as_far_as_asked() {
    let lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nRUN echo kept > /kept\n");
    lab.write("file", "x");
    // An image would hold the layer, and what an image holds neither counts nor goes.
    let build = ["buildx", "build", "-o", "type=cacheonly", "."];
    lab.ok(&build);
    let is_cached = || lab.ok(&build).1.contains("CACHED");
    for limit in [
        "--min-free-space=1",
        "--reserved-space=100gb",
        "--max-used-space=100gb",
    ] {
        lab.ok(&["buildx", "prune", "-af", limit]);
        assert!(is_cached(), "{limit}");
    }
    lab.ok(&["buildx", "prune", "-af", "--filter", "id=nosuch"]);
    assert!(is_cached());
    // So much room is nowhere.
    lab.ok(&["buildx", "prune", "-af", "--min-free-space=1000000tb"]);
    assert!(!is_cached());
    lab.ok(&["buildx", "prune", "-af", "--max-used-space=1"]);
    assert!(!is_cached());
}

#[test]
fn a_build_of_late_is_looked_into_and_forgotten() {
    let mut lab = lab!();
    lab.write("Dockerfile", "FROM box:1\nARG WORD\nRUN echo $WORD\n");
    lab.ok(&["build", "--build-arg", "WORD=told", "."]);
    lab.write("Failing", "FROM box:1\nRUN exit 4\n");
    lab.fails(&["build", "-f", "Failing", "."]);
    let of_builds = |lab: &super::Lab| -> Vec<String> {
        let (builds, _) = lab.ok(&["buildx", "history", "ls", "--no-trunc", "--format", "{{.Ref}}"]);
        builds
            .lines()
            .map(|line| line.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    let builds = of_builds(&lab);
    assert_eq!(builds.len(), 2, "{builds:?}");
    let status = |lab: &super::Lab, build: &str| {
        lab.ok(&["buildx", "history", "inspect", "--format", "{{.Status}}", build])
            .0
    };
    assert_eq!(status(&lab, &builds[1]).trim(), "completed");
    assert_eq!(status(&lab, &builds[0]).trim(), "failed");
    let (shown, _) = lab.ok(&["buildx", "history", "inspect", &builds[1]]);
    assert!(shown.contains("WORD") && shown.contains("told"), "{shown}");
    lab.ok(&["buildx", "history", "rm", &builds[0]]);
    for _ in 0..2 {
        assert_eq!(of_builds(&lab), builds[1..]);
        // Nor does the next daemon know it.
        lab.daemon.crash_and_restart();
    }
    lab.ok(&["buildx", "history", "rm", "--all"]);
    assert!(of_builds(&lab).is_empty());
}
