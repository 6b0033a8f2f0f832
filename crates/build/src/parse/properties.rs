//! Texts by chance: whatever a Dockerfile holds, it is read or refused with a place in it.

use proptest::prelude::*;
use session::pattern::Ignore;

use super::parse;
use crate::graph::Stages;
use crate::instruction::read_all;

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

/// Pieces of the corpus of so many lines each, as they are built and without what is expected of them.
fn corpus() -> Vec<Vec<u8>> {
    const LINES: usize = 24;
    let is_code = |line: &&str| !["## ", "> ", "= "].iter().any(|mark| line.starts_with(mark));
    let lines = |corpus: &'static str| corpus.lines().filter(is_code).collect::<Vec<_>>();
    let pieces = |lines: Vec<&str>| {
        let pieces = lines.chunks(LINES).map(|piece| piece.join("\n").into_bytes());
        pieces.collect::<Vec<_>>()
    };
    CORPUS
        .into_iter()
        .flat_map(|corpus| pieces(lines(corpus)))
        .collect()
}

const WORDS: [&str; 24] = [
    "FROM ",
    "FROM scratch AS a\n",
    "RUN ",
    "COPY --from=a ",
    "ENV A=",
    "ARG B\n",
    "ONBUILD ",
    "HEALTHCHECK ",
    "LABEL ",
    "# escape=`\n",
    "# syntax=x\n",
    "# check=",
    "<<EOF\n",
    "EOF\n",
    "<<-\"A B\"",
    "--mount=type=cache,target=/x ",
    "\\\n",
    "\"",
    "'",
    "${B:-",
    "}",
    "\0",
    "[\"a\"]",
    "\r\n",
];

#[test]
fn fuzz_dockerfile() {
    fuzz::target!("tests/corpus/dockerfile")
        .seeds(corpus())
        .words(&WORDS)
        .run(|text| {
            let read = parse("Dockerfile", text).and_then(|file| {
                let statements = read_all(&file)?;
                Stages::read(&file.source, statements).map(drop)
            });
            if let Err(diagnostic) = &read {
                assert!(!diagnostic.to_string().is_empty());
                if let Some(snippet) = &diagnostic.snippet {
                    assert!(snippet.line() >= 1 && snippet.last_line() >= snippet.line());
                }
            }
            fuzz::outcome(&read)
        });
}

/// Rules made of what stands in Dockerfiles, judged over paths made of the same.
#[test]
fn fuzz_dockerignore() {
    let seeds = corpus();
    let text = String::from_utf8_lossy(&seeds.concat()).into_owned();
    let paths: Vec<&str> = text.split_whitespace().step_by(97).take(24).collect();
    let words = [
        "!", "**", "*", "?", "[a-z]", "[^", "]", "/", "..", "#", "\\", "\n", "\u{feff}",
    ];
    fuzz::target!("tests/corpus/dockerignore")
        .seeds(seeds)
        .words(&words)
        .run(|text| {
            let read = Ignore::parse(&String::from_utf8_lossy(text));
            let mut ignored = 0;
            if let Ok(ignore) = &read {
                for path in &paths {
                    let verdict = ignore.judge(path);
                    let decider = ignore.decider(path);
                    assert_eq!(
                        decider.is_some_and(|(_, rule)| !rule.starts_with('!')),
                        verdict.ignored
                    );
                    ignored += usize::from(verdict.ignored);
                }
            }
            format!("{}, {}", fuzz::outcome(&read), ignored > 0)
        });
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
