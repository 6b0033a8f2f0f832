use super::*;

fn matches(pattern: &str, path: &str) -> bool {
    Pattern::new(&clean(pattern)).unwrap().matches(path)
}

#[test]
fn patterns_match_whole_paths() {
    for (pattern, path, expected) in [
        ("a", "a", true),
        ("a", "a/b", false),
        ("*", "a", true),
        ("*", "a/b", false),
        ("*.go", "x.go", true),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "aXcYb", false),
        ("?", "ä", true),
        ("?", "", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[]a]", "]", false),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("**", "a/b/c", true),
        ("**/c", "c", true),
        ("**/c", "a/b/c", true),
        ("**/c", "a/b/cc", false),
        ("a/**", "a", false),
        ("a/**", "a/b", true),
        ("a/**", "a/b/c", true),
        ("a/**/c", "a/c", true),
        ("a/**/c", "a/x/y/c", true),
        ("**/x/**", "a/x/b", true),
        ("**/x/**", "a/x", false),
        ("a/*/c", "a/b/c", true),
        ("a/*/c", "a/b/b/c", false),
        ("/a", "a", true),
    ] {
        let found = Pattern::new(&clean(pattern))
            .map(|pattern| pattern.matches(path))
            .unwrap_or(false);
        assert_eq!(found, expected, "{pattern} on {path}");
    }
    for broken in ["[", "[a", "[a-", "[]", "a\\", "x[-a]"] {
        assert!(Pattern::new(broken).is_err(), "{broken}");
    }
    assert!(matches("*".repeat(500).as_str(), &"a".repeat(500)));
}

#[test]
fn the_last_rule_that_matches_decides() {
    let text = "\
# comment
*.md
!README.md
/build
node_modules/
**/*.tmp
docs/**
!docs/keep/*.txt
 spaced
";
    let ignore = Ignore::parse(text).unwrap();
    for (path, ignored) in [
        ("x.md", true),
        ("README.md", false),
        ("sub/x.md", false),
        ("build", true),
        ("build/out/x", true),
        ("sub/build", false),
        ("node_modules/a/b", true),
        ("a/b/c.tmp", true),
        ("docs", false),
        ("docs/a", true),
        ("docs/keep/a.txt", false),
        ("docs/keep/a.md", true),
        ("spaced", true),
        ("Dockerfile", false),
    ] {
        assert_eq!(ignore.judge(path).ignored, ignored, "{path}");
    }
}

#[test]
fn directories_are_pruned_unless_an_exception_reaches_inside() {
    let ignore = Ignore::parse("node_modules\ndocs\n!docs/keep\n").unwrap();
    assert_eq!(
        ignore.judge("node_modules"),
        Verdict {
            ignored: true,
            prune: true
        }
    );
    assert_eq!(
        ignore.judge("docs"),
        Verdict {
            ignored: true,
            prune: false
        }
    );
    assert_eq!(
        ignore.judge("docs/other"),
        Verdict {
            ignored: true,
            prune: true
        }
    );
    assert_eq!(
        ignore.judge("docs/keep"),
        Verdict {
            ignored: false,
            prune: false
        }
    );
    assert_eq!(
        ignore.judge("docs/keep/a"),
        Verdict {
            ignored: false,
            prune: false
        }
    );
    let everything = Ignore::parse("*\n!src\n").unwrap();
    assert!(everything.judge("target").prune);
    assert!(!everything.judge("src/main.rs").ignored);
    // An exception that stands before the rule is overruled by it.
    assert!(Ignore::parse("!a/b\na\n").unwrap().judge("a").prune);
}

#[test]
fn the_context_itself_cannot_be_ignored() {
    assert!(Ignore::parse(".\n/\n\n#x\n").unwrap().is_empty());
    assert!(Ignore::parse("!\n").is_err());
    assert!(Ignore::parse("[\n").is_err());
}

#[test]
fn paths_are_cleaned() {
    assert_eq!(clean("/a//b/./c/../d/"), "a/b/d");
    assert_eq!(clean("../../a"), "a");
    assert!(climbs_out("../a"));
    assert!(climbs_out("a/../../b"));
    assert!(!climbs_out("a/../b"));
}

mod properties {
    use proptest::prelude::*;

    use crate::pattern::{Ignore, Pattern, clean};

    /// Names and patterns of few letters, so that many match.
    fn component() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "a", "b", "ab", "a*", "*", "?", "*b", "[ab]", "[^a]", "**", "a?",
        ])
        .prop_map(str::to_owned)
    }

    fn path() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec!["a", "b", "ab", "ba", "c"]);
        prop::collection::vec(name, 1..5).prop_map(|names| names.join("/"))
    }

    fn rules() -> impl Strategy<Value = Vec<(bool, String)>> {
        let pattern = prop::collection::vec(component(), 1..4).prop_map(|parts| parts.join("/"));
        prop::collection::vec((any::<bool>(), pattern), 0..6)
    }

    /// The rules one after the other, each on the path and on every directory above it.
    fn plainly(rules: &[(bool, String)], path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for (includes, pattern) in rules {
            let pattern = Pattern::new(&clean(pattern)).unwrap();
            if (1..=parts.len()).any(|count| pattern.matches(&parts[..count].join("/"))) {
                ignored = !includes;
            }
        }
        ignored
    }

    fn text(rules: &[(bool, String)]) -> String {
        let line =
            |(includes, pattern): &(bool, String)| format!("{}{pattern}\n", if *includes { "!" } else { "" });
        rules.iter().map(line).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn the_last_rule_that_matches_decides(rules in rules(), path in path()) {
            let ignore = Ignore::parse(&text(&rules)).unwrap();
            prop_assert_eq!(ignore.judge(&path).ignored, plainly(&rules, &path));
            let decider = ignore.decider(&path);
            prop_assert_eq!(decider.is_some_and(|(_, rule)| !rule.starts_with('!')), ignore.judge(&path).ignored);
        }

        #[test]
        fn nothing_below_a_pruned_directory_is_taken_back(rules in rules(), top in path(), below in path()) {
            let ignore = Ignore::parse(&text(&rules)).unwrap();
            if ignore.judge(&top).prune {
                let whole = format!("{top}/{below}");
                prop_assert!(ignore.judge(&whole).ignored, "{whole}");
            }
        }

        #[test]
        fn no_rules_make_it_panic(text in "[!#/a*?\\[\\]\\\\^ .\\-\n-]{0,40}", path in "[a/.*\\[]{0,12}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.judge(&path);
                ignore.decider(&path);
            }
        }
    }
}
