//! The language of `--format`: Go's text/template over JSON documents.
//!
//! `lex` cuts the text into tokens, `parse` builds the tree, `eval` walks it over a [`crate::json::Value`], `print`
//! is Go's fmt, `functions` the predefined ones and Docker's additions (json, join, split, upper, lower, title,
//! pad, truncate, println). Field access finds a JSON key by its exact name or ignoring case, since people write
//! Go's field names; `schema` knows which absent or null members are lists, maps or pointers in Docker's structs.
//!
//! `mentions` says which members a template can look at, so that nobody has to make the others.
//!
//! Rules: <https://pkg.go.dev/text/template>. Errors carry Go's wording ("template: :1:2: executing …"), which
//! scripts match. Templates come from the user's own command line; loops are bounded by the data.

mod eval;
mod functions;
mod lex;
mod mentions;
mod parse;
mod print;
mod schema;

use crate::json::Value;

pub use eval::Missing;
pub use print::WRITTEN;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
    header: bool,
}

/// Why a template was refused or could not be filled in.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TemplateError {
    #[error("template: :{line}: {message}")]
    Parse { line: usize, message: String },
    #[error("template: :{line}:{column}: executing \"\" at <{node}>: {message}")]
    Execute {
        line: usize,
        column: usize,
        node: String,
        message: String,
    },
}

impl Template {
    /// Parses the text of a template.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let tokens = lex::tokens(text)?;
        Ok(Template {
            nodes: parse::parse(text, &tokens)?,
            header: false,
        })
    }

    /// The same template, where Docker's functions hand their argument through: it prints a table's heading.
    pub fn for_heading(text: &str) -> Result<Template, TemplateError> {
        Ok(Template {
            header: true,
            ..Template::parse(text)?
        })
    }

    /// The members of its data that it can look at, as it writes them; `None` where that may be any.
    pub fn members(&self) -> Option<Vec<String>> {
        mentions::members(&self.nodes)
    }

    /// Fills the template in.
    pub fn execute(&self, data: &Value, missing: Missing) -> Result<String, TemplateError> {
        eval::execute(&self.nodes, data, missing, self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        Value::parse(
            br#"{"Id":"abc","Name":"/web","Args":["-c","true"],"Num":5,"F":1.5,"Big":12345678901234567,
            "State":{"Status":"running","Pid":42,"Health":null,"Paused":false},
            "Net":{"b":{"IP":"10.0.0.2"},"a":{"IP":"10.0.0.1"}},
            "Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null},
            "HostConfig":{"Binds":null},"Empty":[],"Labels":{"x.y":"z"}}"#,
        )
        .unwrap()
    }

    fn run(text: &str) -> String {
        match Template::parse(text).and_then(|template| template.execute(&data(), Missing::Error)) {
            Ok(out) => out,
            Err(error) => format!("ERR {error}"),
        }
    }

    #[test]
    fn fields_pipelines_and_blocks() {
        for (text, want) in [
            ("{{.Id}}", "abc"),
            ("{{.ID}}", "abc"),
            ("x{{ .State.Status }}y", "xrunningy"),
            (
                "{{json .State}}",
                r#"{"Status":"running","Pid":42,"Health":null,"Paused":false}"#,
            ),
            ("{{.State.Pid | printf \"%05d\"}}", "00042"),
            ("{{range .Args}}<{{.}}>{{end}}", "<-c><true>"),
            ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=-c 1=true "),
            (
                "{{range $k, $v := .Net}}{{$k}}:{{$v.IP}};{{end}}",
                "a:10.0.0.1;b:10.0.0.2;",
            ),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            (
                "{{if .State.Paused}}p{{else if eq .State.Status \"running\"}}r{{else}}o{{end}}",
                "r",
            ),
            ("{{if .State.Health}}h{{else}}n{{end}}", "n"),
            ("{{with .State}}{{.Pid}} {{$.Id}}{{end}}", "42 abc"),
            ("{{with .Empty}}x{{else}}y{{end}}", "y"),
            ("{{index .Args 1}}", "true"),
            ("{{index .Labels \"x.y\"}}", "z"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            (
                "{{with index .Ports \"80/tcp\"}}{{(index . 0).HostIp}}{{end}}",
                "0.0.0.0",
            ),
            ("{{join .Args \",\"}}", "-c,true"),
            ("{{.Name | upper | lower | title}}", "/Web"),
            ("{{len .Args}} {{len .Name}}", "2 4"),
            ("{{slice .Name 1}}", "web"),
            ("{{slice .Id 0 2}}", "ab"),
            (
                "{{printf \"%q %v %s|%-5s|%5s|\" .Id .Args .Name \"a\" \"b\"}}",
                "\"abc\" [-c true] /web|a    |    b|",
            ),
            ("{{println .Id 1 true}}", "abc 1 true\n"),
            ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
            ("{{split \"a:b\" \":\"}}", "[a b]"),
            ("a {{- .Id -}} b", "aabcb"),
            ("{{/* nothing */}}x", "x"),
            ("{{$x := .Id}}{{$x}}{{$x = \"n\"}}{{$x}}", "abcn"),
            (
                "{{and .Id .Num}} {{or .State.Paused \"d\"}} {{not .Id}}",
                "5 d false",
            ),
            (
                "{{lt .Num 6}} {{ge 5 5}} {{ne \"a\" \"b\"}} {{eq .Num 1 5}}",
                "true true true true",
            ),
            ("{{.Big}} {{.F}}", "12345678901234567 1.5"),
            ("{{.Labels}}", "map[x.y:z]"),
            ("{{.HostConfig.Binds}}{{json .HostConfig.Binds}}", "[]null"),
            (
                "{{range .Args}}{{if eq . \"true\"}}{{break}}{{end}}{{.}}{{end}}",
                "-c",
            ),
            ("{{\"a\\tb\"}}{{`raw\\n`}}{{'a'}}", "a\tbraw\\n97"),
            ("{{truncate .Name 2}}{{pad .Id 1 2}}|", "/w abc  |"),
            ("{{html \"<a>\"}} {{urlquery \"a b\"}}", "&lt;a&gt; a+b"),
        ] {
            assert_eq!(run(text), want, "{text}");
        }
    }

    #[test]
    fn errors_speak_as_go() {
        for (text, want) in [
            (
                "{{.Foo}}",
                "ERR template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"",
            ),
            (
                "{{.State.Foo}}",
                "ERR template: :1:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\"",
            ),
            ("{{.Id", "ERR template: :1: unclosed action"),
            ("{{foo}}", "ERR template: :1: function \"foo\" not defined"),
            ("{{if .Id}}x", "ERR template: :1: unexpected EOF"),
            ("{{end}}", "ERR template: :1: unexpected {{end}}"),
            ("{{$x}}", "ERR template: :1: undefined variable \"$x\""),
            (
                "{{.Id.Foo}}",
                "ERR template: :1:5: executing \"\" at <.Id.Foo>: can't evaluate field Foo in type string",
            ),
            (
                "{{index .Args 7}}",
                "ERR template: :1:2: executing \"\" at <index .Args 7>: error calling index: index out of range: 7",
            ),
            (
                "{{eq .Id 1}}",
                "ERR template: :1:2: executing \"\" at <eq .Id 1>: error calling eq: incompatible types for comparison",
            ),
        ] {
            assert_eq!(run(text), want, "{text}");
        }
    }
}
