//! Walks a template's tree over a document.
//!
//! A [`Datum`] is what an expression yields: a JSON value, a typed nil, or nothing (`<no value>`). On the way to a field
//! nothing is copied but what is found at its end: rows are large, and lists have thousands. Evaluation stops at the first
//! error, as Go's does; what was written before is dropped by the caller.

use super::parse::{Command, Node, Operand, Pipeline, Place, What};
use super::schema::{self, Nil};
use super::{TemplateError, functions, print};
use crate::json::Value;

/// What a field that the document lacks does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Missing {
    /// An error in the words of a map lookup: raw documents (`inspect`).
    Error,
    /// An error in the words of a struct lookup: rows of a table; names the Go type.
    Type(&'static str),
}

#[derive(Clone, Debug)]
pub(super) enum Datum {
    Value(Value),
    Nil(Nil),
    NoValue,
}

impl Datum {
    pub(super) fn truth(&self) -> bool {
        match self {
            Datum::Nil(_) | Datum::NoValue => false,
            Datum::Value(value) => match value {
                Value::Null => false,
                Value::Bool(flag) => *flag,
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(members) => !members.is_empty(),
            },
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.seen().kind()
    }

    fn seen(&self) -> Seen<'_> {
        match self {
            Datum::Value(value) => Seen::Value(value),
            Datum::Nil(nil) => Seen::Nil(*nil),
            Datum::NoValue => Seen::NoValue,
        }
    }
}

/// A datum on the way to one of its fields.
#[derive(Clone, Copy)]
enum Seen<'v> {
    Value(&'v Value),
    Nil(Nil),
    NoValue,
}

impl Seen<'_> {
    fn kind(self) -> &'static str {
        match self {
            Seen::NoValue | Seen::Nil(Nil::Pointer) | Seen::Value(Value::Null) => "nil",
            Seen::Nil(Nil::List) | Seen::Value(Value::Array(_)) => "[]interface {}",
            Seen::Nil(Nil::Map) | Seen::Value(Value::Object(_)) => "map[string]interface {}",
            Seen::Value(Value::Bool(_)) => "bool",
            Seen::Value(Value::String(_)) => "string",
            Seen::Value(Value::Number(number)) if number.is_f64() => "float64",
            Seen::Value(Value::Number(_)) => "int",
        }
    }

    fn kept(self) -> Datum {
        match self {
            Seen::Value(value) => Datum::Value(value.clone()),
            Seen::Nil(nil) => Datum::Nil(nil),
            Seen::NoValue => Datum::NoValue,
        }
    }
}

/// What a member is that JSON leaves out where the text is empty.
static NO_TEXT: Value = Value::String(String::new());

/// The name of the variable that stands for the whole data.
const WHOLE: &str = "$";

enum Flow {
    Next,
    Break,
    Continue,
}

struct State<'a> {
    out: String,
    /// What the dot is where it is nothing else.
    root: &'a Value,
    variables: Vec<(String, Datum)>,
    missing: Missing,
    header: bool,
}

pub(super) fn execute(
    nodes: &[Node],
    data: &Value,
    missing: Missing,
    header: bool,
) -> Result<String, TemplateError> {
    let mut state = State {
        out: String::new(),
        root: data,
        variables: Vec::new(),
        missing,
        header,
    };
    state.walk(nodes, None)?;
    Ok(state.out)
}

fn failed(place: &Place, message: impl Into<String>) -> TemplateError {
    TemplateError::Execute {
        line: place.line,
        column: place.column,
        node: place.source.clone(),
        message: message.into(),
    }
}

impl State<'_> {
    fn walk(&mut self, nodes: &[Node], dot: Option<&Datum>) -> Result<Flow, TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    match &value {
                        _ if !pipeline.variables.is_empty() => {}
                        Datum::Value(Value::String(text)) => self.out.push_str(text),
                        value => self.out.push_str(&print::value(value)),
                    }
                }
                Node::If {
                    test,
                    then,
                    otherwise,
                }
                | Node::With {
                    test,
                    then,
                    otherwise,
                } => {
                    let mark = self.variables.len();
                    let value = self.pipeline(test, dot)?;
                    let inner = match matches!(node, Node::With { .. }) {
                        true => Some(&value),
                        false => dot,
                    };
                    let flow = if value.truth() {
                        self.walk(then, inner)?
                    } else {
                        self.walk(otherwise, dot)?
                    };
                    self.variables.truncate(mark);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::Range {
                    over,
                    body,
                    otherwise,
                } => {
                    let mark = self.variables.len();
                    let flow = self.range(over, body, otherwise, dot)?;
                    self.variables.truncate(mark);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
            }
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: Option<&Datum>,
    ) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        let value = self.commands(over, dot)?;
        let place = over.commands.first().map(|command| &command.place);
        let entries: Vec<(Value, Datum)> = match &value {
            Datum::NoValue | Datum::Nil(_) | Datum::Value(Value::Null) => Vec::new(),
            Datum::Value(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (Value::from(index as i64), wrap(item)))
                .collect(),
            Datum::Value(Value::Object(members)) => {
                let mut members: Vec<_> = members.iter().filter(|(key, _)| !key.starts_with('\0')).collect();
                members.sort_by(|left, right| left.0.cmp(&right.0));
                members
                    .into_iter()
                    .map(|(key, item)| (Value::from(key.as_str()), wrap(item)))
                    .collect()
            }
            Datum::Value(Value::Number(count)) if count.is_i64() => {
                (0..count.as_i64().unwrap_or(0).min(1 << 20))
                    .map(|index| (Value::from(index), Datum::Value(Value::from(index))))
                    .collect()
            }
            other => {
                let message = format!("range can't iterate over {}", print::value(other));
                return Err(match place {
                    Some(place) => failed(place, message),
                    None => TemplateError::Parse { line: 1, message },
                });
            }
        };
        if entries.is_empty() {
            return self.walk(otherwise, dot);
        }
        for (key, item) in entries {
            match over.variables.as_slice() {
                [only] => self.bind(over.assign, only, item.clone()),
                [first, second] => {
                    self.bind(over.assign, first, Datum::Value(key));
                    self.bind(over.assign, second, item.clone());
                }
                _ => {}
            }
            let flow = self.walk(body, Some(&item))?;
            if !over.assign {
                self.variables.truncate(mark);
            }
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn bind(&mut self, assign: bool, name: &str, value: Datum) {
        if assign && let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            slot.1 = value;
            return;
        }
        self.variables.push((name.to_owned(), value));
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: Option<&Datum>) -> Result<Datum, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.bind(pipeline.assign, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: Option<&Datum>) -> Result<Datum, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Datum::NoValue))
    }

    fn command(
        &mut self,
        command: &Command,
        dot: Option<&Datum>,
        piped: Option<Datum>,
    ) -> Result<Datum, TemplateError> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Ok(Datum::NoValue);
        };
        let has_arguments = !rest.is_empty() || piped.is_some();
        match &first.what {
            What::Function(name) if name == "and" || name == "or" => {
                self.short_circuit(name == "and", rest, piped, dot, &command.place)
            }
            What::Function(name) => {
                let arguments = self.arguments(rest, piped, dot)?;
                functions::call(name, &arguments, self.header)
                    .map_err(|message| failed(&command.place, message))
            }
            What::Fields(fields) if has_arguments => {
                let arguments = self.arguments(rest, piped, dot)?;
                self.method(self.at(dot), fields, &arguments)
            }
            What::Variable(name, fields) if has_arguments && !fields.is_empty() => {
                let arguments = self.arguments(rest, piped, dot)?;
                self.method(self.variable(name), fields, &arguments)
            }
            _ if has_arguments => {
                let message = format!("can't give argument to non-function {}", first.place.source);
                Err(failed(&first.place, message))
            }
            _ => self.operand(first, dot),
        }
    }

    fn short_circuit(
        &mut self,
        and: bool,
        operands: &[Operand],
        piped: Option<Datum>,
        dot: Option<&Datum>,
        place: &Place,
    ) -> Result<Datum, TemplateError> {
        let mut last = None;
        for operand in operands {
            let value = self.operand(operand, dot)?;
            if value.truth() != and {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| {
            let name = if and { "and" } else { "or" };
            failed(
                place,
                format!("wrong number of args for {name}: want at least 1 got 0"),
            )
        })
    }

    fn arguments(
        &mut self,
        operands: &[Operand],
        piped: Option<Datum>,
        dot: Option<&Datum>,
    ) -> Result<Vec<Datum>, TemplateError> {
        let mut out = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            out.push(self.operand(operand, dot)?);
        }
        out.extend(piped);
        Ok(out)
    }

    fn at<'s>(&'s self, dot: Option<&'s Datum>) -> Seen<'s> {
        dot.map_or(Seen::Value(self.root), Datum::seen)
    }

    fn variable(&self, name: &str) -> Seen<'_> {
        let bound = self.variables.iter().rev().find(|(known, _)| known == name);
        match bound {
            Some((_, value)) => value.seen(),
            None if name == WHOLE => Seen::Value(self.root),
            None => Seen::NoValue,
        }
    }

    fn operand(&mut self, operand: &Operand, dot: Option<&Datum>) -> Result<Datum, TemplateError> {
        Ok(match &operand.what {
            What::Dot => self.at(dot).kept(),
            What::Nil => Datum::Nil(Nil::Pointer),
            What::Bool(flag) => Datum::Value((*flag).into()),
            What::Int(int) => Datum::Value((*int).into()),
            What::Float(float) => Datum::Value(
                serde_json::Number::from_f64(*float)
                    .map(Value::Number)
                    .unwrap_or_default(),
            ),
            What::Str(text) => Datum::Value(text.as_str().into()),
            What::Function(name) => {
                functions::call(name, &[], self.header).map_err(|message| failed(&operand.place, message))?
            }
            What::Fields(fields) => self.fields(self.at(dot), fields)?.kept(),
            What::Variable(name, fields) => self.fields(self.variable(name), fields)?.kept(),
            What::Chain(pipeline, fields) => {
                let base = self.pipeline(pipeline, dot)?;
                match fields.is_empty() {
                    true => base,
                    false => self.fields(base.seen(), fields)?.kept(),
                }
            }
        })
    }

    fn fields<'v>(&self, base: Seen<'v>, fields: &[(String, Place)]) -> Result<Seen<'v>, TemplateError> {
        let mut value = base;
        let mut before = "";
        for (name, place) in fields {
            value = self.field(value, name, place, before)?;
            before = name;
        }
        Ok(value)
    }

    fn field<'v>(
        &self,
        base: Seen<'v>,
        name: &str,
        place: &Place,
        before: &str,
    ) -> Result<Seen<'v>, TemplateError> {
        match base {
            Seen::Value(object @ Value::Object(_)) => match object.get(name) {
                Some(Value::Null) => Ok(Seen::Nil(schema::nil_of(name, false).unwrap_or(Nil::Pointer))),
                Some(found) => Ok(Seen::Value(found)),
                None => match self.missing {
                    Missing::Error if schema::is_text(name) => Ok(Seen::Value(&NO_TEXT)),
                    Missing::Error => match schema::nil_of(name, true) {
                        Some(nil) => Ok(Seen::Nil(nil)),
                        None => Err(failed(place, format!("map has no entry for key \"{name}\""))),
                    },
                    Missing::Type(kind) if std::ptr::eq(object, self.root) || object == self.root => Err(
                        failed(place, format!("can't evaluate field {name} in type {kind}")),
                    ),
                    Missing::Type(_) => Ok(Seen::NoValue),
                },
            },
            Seen::Nil(Nil::Pointer) if !before.is_empty() => {
                Err(failed(place, format!("map has no entry for key \"{before}\"")))
            }
            Seen::Nil(Nil::Map) => Ok(Seen::NoValue),
            Seen::Nil(_) | Seen::NoValue | Seen::Value(Value::Null) => {
                Err(failed(place, format!("nil data; no entry for key \"{name}\"")))
            }
            other => Err(failed(
                place,
                format!("can't evaluate field {name} in type {}", other.kind()),
            )),
        }
    }

    /// `.Label "key"`: the only methods rows have are lookups in a hidden map.
    fn method(
        &self,
        base: Seen<'_>,
        fields: &[(String, Place)],
        arguments: &[Datum],
    ) -> Result<Datum, TemplateError> {
        let Some(((name, place), before)) = fields.split_last() else {
            return Ok(Datum::NoValue);
        };
        let table = match self.fields(base, before)? {
            Seen::Value(object @ Value::Object(_)) => object.get(&format!("\0{name}")),
            _ => None,
        };
        match (table, arguments) {
            (Some(Value::Null), [key]) => {
                // A heading: the last word of the key, as people read it.
                let text = print::value(key);
                let tail = text
                    .rsplit('.')
                    .next()
                    .unwrap_or_default()
                    .replace(['-', '_'], " ");
                Ok(Datum::Value(tail.into()))
            }
            (Some(table), [key]) => {
                let key = print::value(key);
                let found = table.members().iter().find(|(name, _)| *name == key);
                Ok(Datum::Value(
                    found.map_or_else(|| "".into(), |(_, value)| value.clone()),
                ))
            }
            (Some(_), _) => Err(failed(
                place,
                format!("wrong number of args for {name}: want 1 got {}", arguments.len()),
            )),
            (None, _) => Err(failed(
                place,
                format!("{name} has arguments but cannot be invoked as function"),
            )),
        }
    }
}

/// A member of a list or map: null there is Go's nil interface.
fn wrap(value: &Value) -> Datum {
    match value {
        Value::Null => Datum::Nil(Nil::Pointer),
        other => Datum::Value(other.clone()),
    }
}
