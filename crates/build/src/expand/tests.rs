use super::*;

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "A" => "a",
        "EMPTY" => "",
        "WORDS" => "one two",
        "FILE" => "/usr/local/lib/file.tar.gz",
        "STAR" => "*",
        "1" => "first",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words_as_the_reference_says() {
    for (text, expected) in [
        ("", ""),
        ("hello", "hello"),
        ("he'llo'", "hello"),
        ("he'll$A'", "hell$A"),
        ("\"he$A\"", "hea"),
        ("\"a\\\"b\"", "a\"b"),
        ("\"a\\b\"", "a\\b"),
        ("a\\ b", "a b"),
        ("\\$A", "$A"),
        ("'a b' c", "a b c"),
        ("$A", "a"),
        ("${A}x", "ax"),
        ("$Ax", ""),
        ("$", "$"),
        ("a$", "a$"),
        ("$1x", "firstx"),
        ("$.", "$."),
        ("${NONE}", ""),
        ("${NONE:-x}", "x"),
        ("${NONE-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${A:+x}", "x"),
        ("${A+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${NONE:-${A}b}", "ab"),
        ("${NONE:-'$A'}", "$A"),
        ("${NONE:-\"$A b\"}", "a b"),
        ("${A?no}", "a"),
        ("${FILE#*/}", "usr/local/lib/file.tar.gz"),
        ("${FILE##*/}", "file.tar.gz"),
        ("${FILE%.*}", "/usr/local/lib/file.tar"),
        ("${FILE%%.*}", "/usr/local/lib/file"),
        ("${FILE#nothing}", "/usr/local/lib/file.tar.gz"),
        ("${FILE/l/L}", "/usr/Local/lib/file.tar.gz"),
        ("${FILE//l/L}", "/usr/LocaL/Lib/fiLe.tar.gz"),
        ("${A//?/_}", "_"),
        ("${FILE/\\/usr/}", "/local/lib/file.tar.gz"),
        ("${FILE%\\*}", "/usr/local/lib/file.tar.gz"),
        ("${A/$A/$WORDS}", "one two"),
        ("ünï$A", "ünïa"),
    ] {
        assert_eq!(
            expand_word(text, '\\', &variables).as_deref(),
            Ok(expected),
            "{text}"
        );
    }
}

#[test]
fn the_escape_character_can_be_changed() {
    assert_eq!(expand_word("`$A\\b", '`', &variables).unwrap(), "$A\\b");
    assert_eq!(expand_word("\"`\"\\n\"", '`', &variables).unwrap(), "\"\\n");
}

#[test]
fn blanks_split_words_outside_quotes() {
    for (text, expected) in [
        ("a b", vec!["a", "b"]),
        ("$WORDS x", vec!["one", "two", "x"]),
        ("\"$WORDS\" x", vec!["one two", "x"]),
        ("'' x", vec!["", "x"]),
        ("$EMPTY x", vec!["x"]),
        ("a\\ b", vec!["a b"]),
        ("a$WORDS", vec!["aone", "two"]),
        ("   ", vec![]),
    ] {
        assert_eq!(expand_words(text, '\\', &variables).unwrap(), expected, "{text}");
    }
}

#[test]
fn documents_know_no_quotes() {
    assert_eq!(
        expand_document("'$A' \"${A}\" \\$A \\n\n", '\\', &variables).unwrap(),
        "'a' \"a\" $A \\n\n"
    );
}

#[test]
fn faults_are_named() {
    for (text, message) in [
        (
            "'a",
            "unexpected end of statement while looking for matching single-quote",
        ),
        (
            "\"a",
            "unexpected end of statement while looking for matching double-quote",
        ),
        (
            "\"a\\",
            "unexpected end of statement while looking for matching double-quote",
        ),
        ("${A", "syntax error: missing '}'"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${}", "bad substitution: ${}"),
        ("${:}", "bad substitution: ${:"),
        ("${A:x}", "unsupported modifier (:x) in substitution"),
        ("${A=x}", "unsupported modifier (=) in substitution"),
        ("${NONE?}", "NONE: not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: not allowed to be unset or empty"),
        ("${NONE:?set it}", "NONE: set it"),
    ] {
        assert_eq!(
            expand_word(text, '\\', &variables).unwrap_err().to_string(),
            message,
            "{text}"
        );
    }
}

#[test]
fn growth_and_depth_are_bounded() {
    let large = |_: &str| Some("x".repeat(MAX_VALUE / 2));
    assert_eq!(expand_word("$A$A$A", '\\', &large), Err(ExpandError::TooLarge));
    let deep = "${N:-".repeat(10_000);
    assert_eq!(expand_word(&deep, '\\', &variables), Err(ExpandError::TooDeep));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn no_words_make_it_panic(text in "[$\\{\\}a:+?#%/'\"\\\\ \n*\\-]{0,40}") {
        let variables = |name: &str| (name == "a").then(|| "$a*".to_owned());
        let _ = expand_word(&text, '\\', &variables);
        let _ = expand_words(&text, '`', &variables);
        let _ = expand_document(&text, '\\', &variables);
    }
}
