use super::*;

fn commands(text: &str) -> Vec<Command> {
    parse("Dockerfile", text.as_bytes()).unwrap().commands
}

fn refused(text: &str) -> String {
    parse("Dockerfile", text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn splits_keyword_flags_and_rest() {
    let found =
        commands("from --platform=linux/amd64  alpine  AS x \ncopy --from=a --chown='a b' -- --x y\n");
    assert_eq!(found[0].keyword, "FROM");
    assert_eq!(found[0].written, "from");
    assert_eq!(found[0].rest, "alpine  AS x");
    assert_eq!(found[0].flags[0].value.as_deref(), Some("linux/amd64"));
    let flags: Vec<_> = found[1]
        .flags
        .iter()
        .map(|flag| (flag.name.as_str(), flag.value.as_deref()))
        .collect();
    assert_eq!(flags, [("from", Some("a")), ("chown", Some("a b"))]);
    assert_eq!(found[1].rest, "--x y");
}

#[test]
fn joins_continuations_and_drops_comments() {
    let text = "FROM a\nRUN one \\\n  # a comment\n\n  two \\ \t\n# another\nthree\nCMD x\n";
    let file = parse("Dockerfile", text.as_bytes()).unwrap();
    assert_eq!(file.commands[1].rest, "one   two three");
    assert_eq!(file.commands[1].logical.first_line(), 2);
    assert_eq!(file.commands[1].last_line, 7);
    assert_eq!(file.commands[2].logical.first_line(), 8);
    assert_eq!(file.warnings.len(), 1);
    assert!(
        file.warnings[0].starts_with("[WARNING]: Empty continuation line"),
        "{:?}",
        file.warnings
    );
}

#[test]
fn every_word_knows_its_line() {
    let text = "FROM a\nRUN one \\\n  two\n";
    let found = commands(text);
    let logical = &found[1].logical;
    let span = logical.span(logical.text.find("two").unwrap(), 3);
    assert_eq!((span.line, span.column, span.width), (3, 3, 3));
    let span = logical.span(logical.text.find("one").unwrap(), 100);
    assert_eq!((span.line, span.column), (2, 5));
    assert!(span.width <= 5, "cut at the line's end: {}", span.width);
}

#[test]
fn accepts_windows_line_ends_and_a_byte_order_mark() {
    let found = commands("\u{feff}FROM a\r\nRUN one \\\r\n two\r\n");
    assert_eq!(found[0].rest, "a");
    assert_eq!(found[1].rest, "one  two");
}

#[test]
fn directives_rule_the_top_of_the_file() {
    let file = parse(
        "Dockerfile",
        b"# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN a`\n b\\\n",
    )
    .unwrap();
    assert_eq!(file.directives.escape, '`');
    assert_eq!(file.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.commands[1].rest, "a b\\");
    let late = parse("Dockerfile", b"# just a comment\n# escape=`\nFROM a\n").unwrap();
    assert_eq!(late.directives.escape, '\\');
    assert!(refused("# escape=x\nFROM a").starts_with(
        "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\\n --> Dockerfile:1:1"
    ));
    assert!(
        refused("# escape=`\n# escape=`\nFROM a").contains("only one escape parser directive can be used")
    );
}

#[test]
fn heredocs_follow_their_line() {
    let text = "FROM a\nRUN cat <<ONE <<-\"TWO\" > x\n$a\n# kept\nONE\n\t\tb\n\tTWO\nCOPY <<x /y\nx\nCMD z\n";
    let found = commands(text);
    let run = &found[1].heredocs;
    assert_eq!(
        (run[0].name.as_str(), run[0].content.as_str(), run[0].expand),
        ("ONE", "$a\n# kept\n", true)
    );
    assert_eq!(
        (run[1].name.as_str(), run[1].content.as_str(), run[1].expand),
        ("TWO", "b\n", false)
    );
    assert_eq!(found[1].last_line, 7);
    assert_eq!(found[2].heredocs[0].content, "");
    assert_eq!(found[3].rest, "z");
}

#[test]
fn not_every_less_than_is_a_heredoc() {
    for text in [
        "RUN echo $((1<<2))",
        "RUN cat <<<word",
        "RUN echo '<<EOF'",
        "RUN a << b",
        "ENV A=<<EOF",
    ] {
        let found = commands(&format!("FROM a\n{text}\n"));
        assert!(found[1].heredocs.is_empty(), "{text}");
    }
}

#[test]
fn faults_show_the_line_and_a_caret() {
    assert_eq!(
        refused("FROM a\nRUN cat <<EOF\nx\n"),
        "dockerfile parse error on line 2: unterminated heredoc\n --> Dockerfile:2:9\n  |\n2 | RUN cat <<EOF\n  \
         |         ^^^^^\n  = help: end it with a line that holds nothing but EOF"
    );
    assert!(refused("").starts_with("file with no instructions"));
    assert!(refused("# only a comment\n\n").starts_with("file with no instructions"));
    assert!(refused("\\\n").starts_with("file with no instructions"));
    assert!(refused("FROM a\nCOPY --=x a b").contains("unknown flag: --=x"));
}

/// A small generator of numbers, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn no_input_makes_it_panic() {
    let pieces: Vec<&[u8]> = vec![
        b"FROM a\n",
        b"RUN ",
        b"COPY ",
        b"ENV ",
        b"ONBUILD ",
        b"HEALTHCHECK ",
        b"--from=",
        b"--mount=type=cache,",
        b"<<EOF",
        b"EOF\n",
        b"<<-\"X\"",
        b"\\\n",
        b"\\",
        b"\n",
        b"\r\n",
        b"# escape=`\n",
        b"`",
        b"\"",
        b"'",
        b"[",
        b"]",
        b"$",
        b"${",
        b"a=b",
        b" ",
        b"\t",
        b"#",
        b"\xff\xfe",
        b"\xe2\x82",
        "\u{feff}é€𝄞".as_bytes(),
        b"\0",
        b"[\"a\",",
        b"--",
        b"=",
        b"0<<",
        b"LABEL ",
        b"ARG ",
        b"CMD ",
        b"EXPOSE ",
        b"VOLUME []",
        b"SHELL ",
    ];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..random.next() % 12 {
            text.extend_from_slice(pieces[(random.next() % pieces.len() as u64) as usize]);
            if random.next().is_multiple_of(8) {
                text.push(random.next() as u8);
            }
        }
        match parse("Dockerfile", &text) {
            Ok(file) => {
                for command in &file.commands {
                    let _ = command.snippet().to_string();
                    if let Err(diagnostic) = crate::instruction::read(command) {
                        let _ = diagnostic.to_string();
                    }
                }
            }
            Err(diagnostic) => assert!(!diagnostic.to_string().is_empty()),
        }
    }
}
