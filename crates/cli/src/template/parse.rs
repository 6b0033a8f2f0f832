//! The tree of a template.
//!
//! Grammar as Go's text/template/parse, without `define`, `template` and `block` (one command-line template has
//! nothing to include; they are refused by name). Variables are checked here, so that evaluation never meets an
//! unknown one.

use super::lex::{Kind, Token, column_of, line_of};
use super::{TemplateError, functions};

/// Where a node stands, for messages: position and its own source text.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
    pub source: String,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If {
        test: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        test: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub variables: Vec<String>,
    /// `=` instead of `:=`.
    pub assign: bool,
    pub commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    pub operands: Vec<Operand>,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub what: What,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Function(String),
    /// `.A.B`, with the place of each field.
    Fields(Vec<(String, Place)>),
    Variable(String, Vec<(String, Place)>),
    /// `(pipeline).A.B`
    Chain(Box<Pipeline>, Vec<(String, Place)>),
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    next: usize,
    variables: Vec<String>,
    loops: usize,
}

/// How a list of nodes ended.
enum End {
    Eof,
    Closed,
    /// `{{else}}`, or the tail of `{{else if …}}` with the keyword that follows.
    Else(Option<String>),
}

pub(super) fn parse(text: &str, tokens: &[Token]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        text,
        tokens,
        next: 0,
        variables: vec!["$".into()],
        loops: 0,
    };
    let (nodes, end) = parser.list()?;
    match end {
        End::Eof => Ok(nodes),
        End::Closed => Err(parser.error("unexpected {{end}}")),
        End::Else(_) => Err(parser.error("unexpected {{else}}")),
    }
}

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> TemplateError {
        let at = self
            .tokens
            .get(self.next.saturating_sub(1))
            .map_or(self.text.len(), |token| token.at);
        TemplateError::Parse {
            line: line_of(self.text, at),
            message: message.into(),
        }
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn here(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.text.len(), |token| token.at)
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&Kind::Space) {
            self.next += 1;
        }
    }

    fn place(&self, from: usize, column_at: usize) -> Place {
        let source = self
            .text
            .get(from..self.here())
            .unwrap_or_default()
            .trim_end()
            .to_owned();
        Place {
            line: line_of(self.text, column_at),
            column: column_of(self.text, column_at),
            source,
        }
    }

    fn list(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let Some(kind) = self.peek().cloned() else {
                return Ok((nodes, End::Eof));
            };
            self.next += 1;
            match kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::Open => {
                    self.skip_space();
                    let keyword = match self.peek() {
                        Some(Kind::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match keyword.as_str() {
                        "end" => {
                            self.next += 1;
                            self.close("end")?;
                            return Ok((nodes, End::Closed));
                        }
                        "else" => {
                            self.next += 1;
                            self.skip_space();
                            if let Some(Kind::Word(word)) = self.peek()
                                && (word == "if" || word == "with")
                            {
                                let word = word.clone();
                                self.next += 1;
                                return Ok((nodes, End::Else(Some(word))));
                            }
                            self.close("else")?;
                            return Ok((nodes, End::Else(None)));
                        }
                        "if" | "with" | "range" => {
                            self.next += 1;
                            nodes.push(self.control(&keyword)?);
                        }
                        "break" | "continue" => {
                            self.next += 1;
                            if self.loops == 0 {
                                return Err(self.error(format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                            }
                            self.close(&keyword)?;
                            nodes.push(if keyword == "break" {
                                Node::Break
                            } else {
                                Node::Continue
                            });
                        }
                        "define" | "template" | "block" => {
                            return Err(self.error(format!("{{{{{keyword}}}}} is not supported in --format")));
                        }
                        _ => {
                            let pipeline = self.pipeline("command")?;
                            self.next += 1; // Close, checked by pipeline()
                            nodes.push(Node::Action(pipeline));
                        }
                    }
                }
                _ => return Err(self.error("unexpected token")),
            }
        }
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        self.skip_space();
        if self.peek() == Some(&Kind::Close) {
            self.next += 1;
            return Ok(());
        }
        let found = self.found();
        Err(self.error(format!("unexpected {found} in {context}")))
    }

    fn found(&self) -> String {
        match self.peek() {
            None => "EOF".into(),
            Some(Kind::Close) => "\"}}\"".into(),
            Some(_) => {
                let end = self
                    .tokens
                    .get(self.next + 1)
                    .map_or(self.text.len(), |token| token.at);
                format!("{:?}", self.text.get(self.here()..end).unwrap_or_default().trim())
            }
        }
    }

    fn control(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        let known = self.variables.len();
        let test = self.pipeline(keyword)?;
        self.next += 1;
        if keyword == "range" {
            self.loops += 1;
        }
        let (then, end) = self.list()?;
        if keyword == "range" {
            self.loops -= 1;
        }
        let otherwise = match end {
            End::Eof => return Err(self.error("unexpected EOF")),
            End::Closed => Vec::new(),
            End::Else(Some(word)) if keyword != "range" => vec![self.control(&word)?],
            End::Else(Some(_)) => return Err(self.error("unexpected <if> in else")),
            End::Else(None) => match self.list()? {
                (nodes, End::Closed) => nodes,
                (_, End::Else(_)) => return Err(self.error("expected end; found {{else}}")),
                (_, End::Eof) => return Err(self.error("unexpected EOF")),
            },
        };
        self.variables.truncate(known);
        Ok(match keyword {
            "if" => Node::If {
                test,
                then,
                otherwise,
            },
            "with" => Node::With {
                test,
                then,
                otherwise,
            },
            _ => Node::Range {
                over: test,
                body: then,
                otherwise,
            },
        })
    }

    /// Reads up to (not including) the closing delimiter or parenthesis.
    fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
        self.skip_space();
        let mut variables = Vec::new();
        let mut assign = false;
        let start = self.next;
        // `$a := …`, `$a, $b := …`, `$a = …`: look ahead, go back when it is only a use.
        let mut names = Vec::new();
        while let Some(Kind::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.next += 1;
            self.skip_space();
            match self.peek() {
                Some(Kind::Comma) if context == "range" && names.len() == 1 => {
                    self.next += 1;
                    self.skip_space();
                }
                Some(Kind::Declare) => {
                    self.next += 1;
                    variables = std::mem::take(&mut names);
                    break;
                }
                Some(Kind::Assign) => {
                    self.next += 1;
                    assign = true;
                    variables = std::mem::take(&mut names);
                    break;
                }
                _ => break,
            }
        }
        if variables.is_empty() {
            self.next = start;
        }
        if assign && let Some(unknown) = variables.iter().find(|name| !self.variables.contains(name)) {
            let message = format!("undefined variable \"{unknown}\"");
            return Err(self.error(message));
        }
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            commands.push(self.command(context)?);
            self.skip_space();
            match self.peek() {
                Some(Kind::Pipe) => self.next += 1,
                Some(Kind::Close | Kind::ParenClose) => break,
                _ => {
                    let found = self.found();
                    return Err(self.error(format!("unexpected {found} in {context}")));
                }
            }
        }
        if !assign {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline {
            variables,
            assign,
            commands,
        })
    }

    fn command(&mut self, context: &str) -> Result<Command, TemplateError> {
        let from = self.here();
        let mut operands: Vec<Operand> = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None => return Err(self.error("unexpected EOF")),
                Some(Kind::Close | Kind::ParenClose | Kind::Pipe) => break,
                Some(_) => operands.push(self.operand(context)?),
            }
        }
        match operands.first() {
            None if matches!(self.peek(), Some(Kind::Pipe)) || context == "command" => {
                Err(self.error(format!("missing value for {context}")))
            }
            None => Err(self.error(format!("missing value for {context}"))),
            Some(first) => {
                let column = match &first.what {
                    What::Fields(fields) => fields.last().map(|(_, place)| place.column),
                    _ => None,
                };
                let mut place = self.place(from, from);
                if let (Some(column), 1) = (column, operands.len()) {
                    place.column = column;
                }
                Ok(Command { operands, place })
            }
        }
    }

    fn operand(&mut self, context: &str) -> Result<Operand, TemplateError> {
        let from = self.here();
        let Some(kind) = self.peek().cloned() else {
            return Err(self.error("unexpected EOF"));
        };
        self.next += 1;
        let what = match kind {
            Kind::Dot => What::Dot,
            Kind::Int(int) => What::Int(int),
            Kind::Float(float) => What::Float(float),
            Kind::Str(text) => What::Str(text),
            Kind::Char(letter) => What::Int(letter as i64),
            Kind::Word(word) => match word.as_str() {
                "true" => What::Bool(true),
                "false" => What::Bool(false),
                "nil" => What::Nil,
                name if functions::exists(name) => What::Function(word),
                _ => return Err(self.error(format!("function \"{word}\" not defined"))),
            },
            Kind::Field(name) => {
                let first = (name, self.place(from, from));
                let mut fields = vec![first];
                fields.extend(self.fields(from));
                What::Fields(fields)
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.error(format!("undefined variable \"{name}\"")));
                }
                What::Variable(name, self.fields(from))
            }
            Kind::ParenOpen => {
                let inner = self.pipeline("parenthesized pipeline")?;
                if self.peek() != Some(&Kind::ParenClose) {
                    return Err(self.error("unclosed left paren"));
                }
                self.next += 1;
                What::Chain(Box::new(inner), self.fields(from))
            }
            _ => {
                self.next -= 1;
                let found = self.found();
                self.next += 1;
                return Err(self.error(format!("unexpected {found} in {context}")));
            }
        };
        match self.peek() {
            Some(Kind::Space | Kind::Close | Kind::ParenClose | Kind::Pipe) | None => {}
            Some(_) => {
                let found = self.found();
                return Err(self.error(format!("unexpected {found} in operand")));
            }
        }
        Ok(Operand {
            what,
            place: self.place(from, from),
        })
    }

    /// The fields that follow without a space.
    fn fields(&mut self, from: usize) -> Vec<(String, Place)> {
        let mut out = Vec::new();
        while let Some(Kind::Field(name)) = self.peek().cloned() {
            let at = self.here();
            self.next += 1;
            out.push((name, self.place(from, at)));
        }
        out
    }
}
