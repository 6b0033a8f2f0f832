//! Failures: what is said, with which code, and that nothing stays.

use std::time::Duration;

use spec::ErrorClass;

use crate::lab::Lab;

#[tokio::test]
async fn a_failing_command_names_itself_and_its_line() {
    let Some(lab) = Lab::new().await else { return };
    let built = lab
        .build("FROM base\nRUN echo out; echo err >&2\n\nRUN echo half > /half; \\\n  exit 3\nRUN never\n")
        .await;
    let error = built.error();
    assert_eq!(
        error.to_string(),
        "The command '/bin/sh -c echo half > /half;   exit 3' returned a non-zero code: 3"
    );
    assert_eq!(error.exit_code(), Some(3));
    assert_eq!(error.snippet().map(|snippet| snippet.line()), Some(4));
    assert!(
        built.text.contains("\nout\n") && built.text.contains("err\n"),
        "{}",
        built.text
    );
    assert!(
        built.text.contains("4 | RUN echo half > /half; \\"),
        "{}",
        built.text
    );
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn mistakes_are_found_before_anything_runs() {
    let Some(lab) = Lab::new().await else { return };
    for (text, message) in [
        (
            "FROM base\nRUN x\nFOO bar\n",
            "dockerfile parse error on line 3: unknown instruction: FOO",
        ),
        (
            "FROM base\nRUN echo\nEXPOSE a\n",
            "dockerfile parse error on line 3: invalid containerPort: a",
        ),
        (
            "FROM base\nRUN echo\nENV A=\"${B:?set B}\"\n",
            "dockerfile parse error on line 3: failed to process",
        ),
        (
            "FROM $NONE\n",
            "dockerfile parse error on line 1: base name ($NONE) should not be blank",
        ),
        (
            "FROM base\nRUN echo\nCOPY --chmod=rw a b\n",
            "dockerfile parse error on line 3: invalid chmod parameter",
        ),
        (
            "FROM base\nRUN echo\nADD --checksum=sha256:1 https://h/x.git /x\n",
            "dockerfile parse error on line 3: --checksum: sha256:1 is not the hexadecimal name of a commit",
        ),
        (
            "FROM base\nRUN echo\nRUN --security=insecure x\n",
            "dockerfile parse error on line 3: security.insecure is not allowed for this build",
        ),
        (
            "FROM base AS x\nRUN echo\nCOPY --from=x a b\n",
            "dockerfile parse error on line 3: circular dependency",
        ),
    ] {
        let built = lab.build(text).await;
        assert_eq!(built.runs, 0, "{text}");
        assert!(
            built.error().to_string().starts_with(message),
            "{text}: {}",
            built.error()
        );
        assert_eq!(built.error().class(), ErrorClass::Invalid);
        assert!(
            built.error().to_string().contains(" | "),
            "the line is shown: {}",
            built.error()
        );
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let Some(lab) = Lab::new().await else { return };
    let built = lab.build("FROM nosuch:1\n").await;
    assert_eq!(
        built.error().to_string(),
        "pull access denied for nosuch:1, repository does not exist"
    );
    assert_eq!(built.error().class(), ErrorClass::NotFound);
    let mut request = lab.request("FROM base\n");
    request.dockerfile = "Other".to_owned();
    let built = lab.build_request(request).await;
    assert_eq!(
        built.error().to_string(),
        "Cannot locate specified Dockerfile: Other"
    );
    let mut request = lab.request("FROM base AS x\n");
    request.target = Some("y".to_owned());
    let built = lab.build_request(request).await;
    assert_eq!(
        built.error().to_string(),
        "failed to reach build target y in Dockerfile"
    );
    let built = lab.build("FROM scratch\nRUN x\n").await;
    assert!(
        built.error().to_string().starts_with("RUN needs a base image"),
        "{}",
        built.error()
    );
    let built = lab.build("FROM scratch\n").await;
    assert_eq!(
        built.error().to_string(),
        "No image was generated. Is your Dockerfile empty?"
    );
}

#[tokio::test]
async fn cancelling_kills_the_step_and_leaves_nothing() {
    let Some(lab) = Lab::new().await else { return };
    let request = lab.request("FROM base\nRUN echo begun; sleep 1000\n");
    let stop = request.stop.clone();
    let runs = lab.executor.clone();
    let cancel = async {
        while runs.runs.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    let (built, ()) = tokio::join!(lab.build_request(request), cancel);
    assert_eq!(built.error().to_string(), "Build cancelled");
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn a_failure_stops_what_runs_beside_it() {
    let Some(lab) = Lab::new().await else { return };
    let built = lab
        .build("FROM base AS slow\nRUN sleep 1000\nFROM base\nRUN exit 7\nCOPY --from=slow /etc /etc\n")
        .await;
    assert_eq!(built.error().exit_code(), Some(7));
    assert_eq!(lab.leftovers(), 0);
}
