//! Lines, each with the number of its step in front.
//!
//! A step's name stands before its first line, and again where others spoke in between.

use super::steps::{News, Steps};
use std::collections::HashSet;
use std::io::{self, Write};

#[derive(Default)]
pub struct Plain {
    /// Whose lines were written last.
    last: Option<usize>,
    /// Steps whose last line had no end.
    open: HashSet<usize>,
}

impl Plain {
    pub fn show(&mut self, steps: &Steps, news: &[News], out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        for news in news {
            self.write(steps, news, &mut text);
        }
        if text.is_empty() {
            return Ok(());
        }
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Begins a line of a step.
    fn head(&mut self, steps: &Steps, index: usize, text: &mut String) {
        let Some(step) = steps.get(index) else {
            return;
        };
        if self.last == Some(index) {
            return;
        }
        if let Some(last) = self.last {
            if self.open.remove(&last) {
                text.push('\n');
            }
            text.push('\n');
        }
        self.last = Some(index);
        text.push_str(&format!("#{} {}\n", step.number, step.name));
    }

    fn write(&mut self, steps: &Steps, news: &News, text: &mut String) {
        let index = match news {
            News::Begun(index)
            | News::Said(index, _)
            | News::Part(index, _)
            | News::Reason(index, _)
            | News::Ended(index) => *index,
        };
        let Some(step) = steps.get(index) else {
            return;
        };
        let line = match news {
            News::Said(_, said) => {
                self.head(steps, index, text);
                return self.said(index, step.number, step.took().as_secs_f64(), said, text);
            }
            News::Part(_, part) if !part.ended => return,
            News::Part(_, part) => {
                let took = part
                    .took
                    .map(|took| took.as_secs_f64())
                    .filter(|took| *took >= 0.05);
                let took = took.map(|took| format!(" {took:.1}s")).unwrap_or_default();
                format!("{}{took} done", part.text())
            }
            News::Reason(_, reason) => format!("cache miss: {reason}"),
            News::Ended(_) if !step.error.is_empty() => format!("ERROR: {}", step.error),
            News::Ended(_) if step.cached => "CACHED".to_owned(),
            News::Ended(_) => format!("DONE {:.1}s", step.took().as_secs_f64()),
            News::Begun(_) => String::new(),
        };
        self.head(steps, index, text);
        if line.is_empty() {
            return;
        }
        if self.open.remove(&index) {
            text.push('\n');
        }
        text.push_str(&format!("#{} {line}\n", step.number));
    }

    fn said(&mut self, index: usize, number: usize, at: f64, said: &str, text: &mut String) {
        for line in said.split_inclusive('\n') {
            if !self.open.contains(&index) {
                text.push_str(&format!("#{number} {at:.3} "));
            }
            text.push_str(line);
            match line.ends_with('\n') {
                true => self.open.remove(&index),
                false => self.open.insert(index),
            };
        }
    }
}
