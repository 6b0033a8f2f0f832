//! Texts by chance: whatever a Dockerfile holds, it is read or refused with a place in it.

use proptest::prelude::*;
use session::pattern::Ignore;

use super::parse;
use crate::graph::Stages;
use crate::instruction::read_all;
use crate::mangle::mangle;

/// Pieces of Dockerfiles, among which the mistakes lie that are nearly right.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("FROM".to_owned()),
        Just("FROM scratch AS a\n".to_owned()),
        Just("RUN <<EOF\nx\nEOF\n".to_owned()),
        Just("RUN --mount=type=cache,target=/x ".to_owned()),
        Just("COPY --from=a --chmod=u+x,g-w <<-\"A B\" /x ".to_owned()),
        Just("HEALTHCHECK --interval=1m3 CMD [\"a\"".to_owned()),
        Just("ENV A=${B:-\"c d\"} E='".to_owned()),
        Just("# escape=`\n".to_owned()),
        Just("# check=skip=all;error=".to_owned()),
        Just("ONBUILD ONBUILD ".to_owned()),
        Just("LABEL \\\n# x\n\n a=b".to_owned()),
        Just("\\\n".to_owned()),
        Just("`\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\u{feff}".to_owned()),
        "[ -~\n]{0,12}",
        any::<String>(),
    ]
}

/// Dockerfiles with what is expected of them, one per behaviour, which the end-to-end tests build.
const CORPUS: [&str; 5] = [
    include_str!("../../../berth/tests/e2e/corpus/copy.cases"),
    include_str!("../../../berth/tests/e2e/corpus/parse.cases"),
    include_str!("../../../berth/tests/e2e/corpus/run.cases"),
    include_str!("../../../berth/tests/e2e/corpus/stages.cases"),
    include_str!("../../../berth/tests/e2e/corpus/variables.cases"),
];

#[test]
fn dockerfiles_with_mistakes_are_read_or_refused() {
    let mut refused = 0;
    let is_code = |line: &&str| !["## ", "> ", "= "].iter().any(|mark| line.starts_with(mark));
    for corpus in CORPUS {
        let code: Vec<&str> = corpus.lines().filter(is_code).collect();
        mangle(&code.join("\n"), 8, |text| {
            let read = parse("Dockerfile", text).and_then(|file| {
                let statements = read_all(&file)?;
                Stages::read(&file.source, statements).map(drop)
            });
            refused += usize::from(read.is_err_and(|diagnostic| !diagnostic.to_string().is_empty()));
        });
    }
    assert!(refused > 0);
}

/// Rules made of what stands in Dockerfiles, judged over paths made of the same.
#[test]
fn rules_with_mistakes_are_read_or_refused() {
    let corpus = include_str!("../../../berth/tests/e2e/corpus/copy.cases");
    let paths: Vec<&str> = corpus.split_whitespace().step_by(97).take(24).collect();
    let mut read = 0;
    mangle(corpus, 3, |text| {
        if let Ok(ignore) = Ignore::parse(&String::from_utf8_lossy(text)) {
            read += 1;
            for path in &paths {
                let verdict = ignore.judge(path);
                let decider = ignore.decider(path);
                assert_eq!(
                    decider.is_some_and(|(_, rule)| !rule.starts_with('!')),
                    verdict.ignored
                );
            }
        }
    });
    assert!(read > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn texts_are_read_or_refused(pieces in proptest::collection::vec(piece(), 0..24)) {
        let text = pieces.concat();
        let lines = text.lines().count() + 1;
        let read = parse("Dockerfile", text.as_bytes()).and_then(|file| {
            let statements = read_all(&file)?;
            Stages::read(&file.source, statements).map(drop)
        });
        if let Err(diagnostic) = read {
            prop_assert!(!diagnostic.to_string().is_empty());
            if let Some(snippet) = &diagnostic.snippet {
                prop_assert!((1..=lines).contains(&snippet.line()), "line {} of {lines}", snippet.line());
                prop_assert!(snippet.last_line() >= snippet.line());
            }
        }
    }

    #[test]
    fn bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(file) = parse("Dockerfile", &bytes) {
            let _ = read_all(&file).and_then(|statements| Stages::read(&file.source, statements));
        }
    }
}
