//! Which members of its data a template can look at.
//!
//! The answer may name too many, never too few: what stands behind a variable or within `with` is taken for a member of
//! the data itself, and whoever hands the data on as a whole (`{{.}}`, `{{json .}}`, `{{$}}`) may look at all of it.

use super::parse::{Node, Pipeline, What};

/// The names, as they are written; `None` where any member may be looked at.
pub(super) fn members(nodes: &[Node]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    walk(nodes, &mut found).then_some(found)
}

/// False as soon as the data as a whole is used.
fn walk(nodes: &[Node], found: &mut Vec<String>) -> bool {
    nodes.iter().all(|node| match node {
        Node::Text(_) | Node::Break | Node::Continue => true,
        Node::Action(value) => pipeline(value, found),
        Node::If {
            test: value,
            then: nodes,
            otherwise,
        }
        | Node::With {
            test: value,
            then: nodes,
            otherwise,
        }
        | Node::Range {
            over: value,
            body: nodes,
            otherwise,
        } => pipeline(value, found) && walk(nodes, found) && walk(otherwise, found),
    })
}

fn pipeline(value: &Pipeline, found: &mut Vec<String>) -> bool {
    let mut operands = value.commands.iter().flat_map(|command| &command.operands);
    operands.all(|operand| match &operand.what {
        What::Dot => false,
        What::Fields(fields) | What::Variable(_, fields) => {
            let first = fields.first();
            found.extend(first.map(|(name, _)| name.clone()));
            first.is_some()
        }
        What::Chain(inner, _) => pipeline(inner, found),
        What::Nil | What::Bool(_) | What::Int(_) | What::Float(_) | What::Str(_) | What::Function(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use crate::template::Template;

    fn members(text: &str) -> Option<Vec<String>> {
        Template::parse(text).unwrap().members()
    }

    #[test]
    fn what_is_named_is_found_wherever_it_stands() {
        let cases: [(&str, &[&str]); 8] = [
            ("none", &[]),
            ("{{.A}}\t{{.B.C}}", &["A", "B"]),
            ("{{if .A}}{{.B}}{{else}}{{$.C}}{{end}}", &["A", "B", "C"]),
            ("{{with .A}}{{.B}}{{end}}", &["A", "B"]),
            ("{{printf \"%s\" (upper .A)}}{{.B | lower}}", &["A", "B"]),
            ("{{.Label \"x\"}}", &["Label"]),
            ("{{(index .A 0).B}}", &["A"]),
            ("{{range $i, $x := .A}}{{$x.B}}{{end}}", &["A", "B"]),
        ];
        for (text, want) in cases {
            assert_eq!(members(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn data_that_is_handed_on_may_be_looked_at_everywhere() {
        for text in [
            "{{.}}",
            "{{json .}}",
            "{{$}}",
            "{{range $k, $v := .}}{{$k}}{{end}}",
            "{{.A}}{{with $x := .}}{{end}}",
            "{{if false}}{{(index . \"A\").B}}{{end}}",
            // Another variable may stand for the whole.
            "{{$x := $}}{{$x}}",
        ] {
            assert_eq!(members(text), None, "{text}");
        }
    }
}
