//! One block that changes in place: a line for each step, and below a step that runs its last lines.
//!
//! The block is never higher or wider than the terminal: where there are more steps, those that have ended make place.

use super::steps::{Step, Steps};
use crate::format::ellipsis;
use std::io::{self, Write};
use std::time::Instant;

/// How many of its last lines a running step shows.
const LINES: usize = 6;
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

pub struct Tty {
    begun: Instant,
    /// Rows of the block on the screen.
    rows: usize,
    frame: usize,
}

impl Default for Tty {
    fn default() -> Self {
        Tty {
            begun: Instant::now(),
            rows: 0,
            frame: 0,
        }
    }
}

impl Tty {
    pub fn draw(&mut self, steps: &Steps, size: Option<(u16, u16)>, out: &mut dyn Write) -> io::Result<()> {
        let (rows, columns) = size.map_or((24, 80), |(rows, columns)| {
            (usize::from(rows), usize::from(columns))
        });
        let lines = self.lines(
            steps,
            rows.saturating_sub(1).max(2),
            columns.saturating_sub(1).max(20),
        );
        let mut text = String::new();
        if self.rows > 0 {
            text.push_str(&format!("\x1b[{}A\r", self.rows));
        }
        for line in &lines {
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        // What was longer before goes.
        text.push_str("\x1b[J");
        self.rows = lines.len();
        self.frame += 1;
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// The block, of at most so many rows and columns.
    pub(super) fn lines(&self, steps: &Steps, rows: usize, columns: usize) -> Vec<String> {
        let all = steps.all();
        let ended = all.iter().filter(|step| step.ended.is_some()).count();
        let head = format!(
            "[+] Building {:.1}s ({ended}/{})",
            self.begun.elapsed().as_secs_f64(),
            all.len()
        );
        let mut blocks: Vec<(bool, Vec<String>)> = all
            .iter()
            .filter(|step| step.started.is_some())
            .map(|step| (step.is_running(), self.step(step, columns)))
            .collect();
        let mut height: usize = blocks.iter().map(|(_, lines)| lines.len()).sum();
        // The eldest that have ended make place first, then the last lines of those that run.
        while height + 1 > rows
            && let Some(at) = blocks.iter().position(|(running, _)| !running)
        {
            height -= blocks.remove(at).1.len();
        }
        let lines =
            std::iter::once(ellipsis(&head, columns)).chain(blocks.into_iter().flat_map(|block| block.1));
        lines.take(rows).collect()
    }

    fn step(&self, step: &Step, columns: usize) -> Vec<String> {
        let frame = FRAMES.get(self.frame % FRAMES.len()).copied().unwrap_or('|');
        let state = match step {
            step if !step.error.is_empty() => "ERROR ".to_owned(),
            step if step.cached => "CACHED ".to_owned(),
            step if step.is_running() => format!("{frame} "),
            _ => String::new(),
        };
        let took = format!("{:.1}s", step.took().as_secs_f64());
        let room = columns.saturating_sub(took.chars().count() + 1);
        let name = ellipsis(&format!(" => {state}{}", step.name), room);
        let gap = room.saturating_sub(name.chars().count());
        let mut lines = vec![format!("{name}{:gap$} {took}", "")];
        if let Some(reason) = &step.reason {
            lines.push(ellipsis(&format!(" => => made because {reason}"), columns));
        }
        if !step.is_running() {
            return lines;
        }
        for part in step.parts.iter().filter(|part| !part.ended) {
            lines.push(ellipsis(&format!(" => => {}", part.text()), columns));
        }
        for line in step.last_lines(LINES) {
            lines.push(ellipsis(
                &format!(" => => # {}", line.replace('\t', "    ")),
                columns,
            ));
        }
        lines
    }
}
