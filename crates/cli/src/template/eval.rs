//! Walks a template's tree over a document.
//!
//! A [`Datum`] is what an expression yields: a JSON value, a typed nil, or nothing (`<no value>`). Evaluation stops
//! at the first error, as Go's does; what was written before is dropped by the caller.

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
        match self {
            Datum::NoValue | Datum::Nil(Nil::Pointer) | Datum::Value(Value::Null) => "nil",
            Datum::Nil(Nil::List) | Datum::Value(Value::Array(_)) => "[]interface {}",
            Datum::Nil(Nil::Map) | Datum::Value(Value::Object(_)) => "map[string]interface {}",
            Datum::Value(Value::Bool(_)) => "bool",
            Datum::Value(Value::String(_)) => "string",
            Datum::Value(Value::Number(number)) if number.is_f64() => "float64",
            Datum::Value(Value::Number(_)) => "int",
        }
    }
}

enum Flow {
    Next,
    Break,
    Continue,
}

struct State<'a> {
    out: String,
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
    let dot = Datum::Value(data.clone());
    let variables = vec![("$".to_owned(), dot.clone())];
    let mut state = State {
        out: String::new(),
        root: data,
        variables,
        missing,
        header,
    };
    state.walk(nodes, &dot)?;
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
    fn walk(&mut self, nodes: &[Node], dot: &Datum) -> Result<Flow, TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&print::value(&value));
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
                    let inner = if matches!(node, Node::With { .. }) {
                        &value
                    } else {
                        dot
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
        dot: &Datum,
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
            let flow = self.walk(body, &item)?;
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

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Datum) -> Result<Datum, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.bind(pipeline.assign, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Datum) -> Result<Datum, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Datum::NoValue))
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Datum,
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
                self.method(dot, fields, &arguments)
            }
            What::Variable(name, fields) if has_arguments && !fields.is_empty() => {
                let base = self.variable(name);
                let arguments = self.arguments(rest, piped, dot)?;
                self.method(&base, fields, &arguments)
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
        dot: &Datum,
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
        dot: &Datum,
    ) -> Result<Vec<Datum>, TemplateError> {
        let mut out = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            out.push(self.operand(operand, dot)?);
        }
        out.extend(piped);
        Ok(out)
    }

    fn variable(&self, name: &str) -> Datum {
        self.variables
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map_or(Datum::NoValue, |(_, value)| value.clone())
    }

    fn operand(&mut self, operand: &Operand, dot: &Datum) -> Result<Datum, TemplateError> {
        Ok(match &operand.what {
            What::Dot => dot.clone(),
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
            What::Fields(fields) => self.fields(dot.clone(), fields)?,
            What::Variable(name, fields) => {
                let base = self.variable(name);
                self.fields(base, fields)?
            }
            What::Chain(pipeline, fields) => {
                let base = self.pipeline(pipeline, dot)?;
                self.fields(base, fields)?
            }
        })
    }

    fn fields(&self, base: Datum, fields: &[(String, Place)]) -> Result<Datum, TemplateError> {
        let mut value = base;
        let mut before = "";
        for (name, place) in fields {
            value = self.field(value, name, place, before)?;
            before = name;
        }
        Ok(value)
    }

    fn field(&self, base: Datum, name: &str, place: &Place, before: &str) -> Result<Datum, TemplateError> {
        match &base {
            Datum::Value(object @ Value::Object(_)) => match object.get(name) {
                Some(Value::Null) => Ok(Datum::Nil(schema::nil_of(name, false).unwrap_or(Nil::Pointer))),
                Some(found) => Ok(Datum::Value(found.clone())),
                None => match self.missing {
                    Missing::Error if schema::is_text(name) => Ok(Datum::Value("".into())),
                    Missing::Error => match schema::nil_of(name, true) {
                        Some(nil) => Ok(Datum::Nil(nil)),
                        None => Err(failed(place, format!("map has no entry for key \"{name}\""))),
                    },
                    Missing::Type(kind) if std::ptr::eq(object, self.root) || object == self.root => Err(
                        failed(place, format!("can't evaluate field {name} in type {kind}")),
                    ),
                    Missing::Type(_) => Ok(Datum::NoValue),
                },
            },
            Datum::Nil(Nil::Pointer) if !before.is_empty() => {
                Err(failed(place, format!("map has no entry for key \"{before}\"")))
            }
            Datum::Nil(Nil::Map) => Ok(Datum::NoValue),
            Datum::Nil(_) | Datum::NoValue | Datum::Value(Value::Null) => {
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
        base: &Datum,
        fields: &[(String, Place)],
        arguments: &[Datum],
    ) -> Result<Datum, TemplateError> {
        let Some(((name, place), before)) = fields.split_last() else {
            return Ok(Datum::NoValue);
        };
        let holder = self.fields(base.clone(), before)?;
        let table = match &holder {
            Datum::Value(object @ Value::Object(_)) => object.get(&format!("\0{name}")),
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
