//! `[=====>     ]  1.2MB/3.4MB`.

use crate::format::size;
use api_types::ProgressMessage;

/// Cells of a whole bar.
const CELLS: usize = 50;
/// Narrower terminals have room for the count only.
const ROOM: usize = 110;

/// Whether a message counts bytes.
pub fn counted(message: &ProgressMessage) -> bool {
    let detail = message.progress_detail.as_ref();
    detail.is_some_and(|detail| detail.current > 0 || detail.total > 0)
}

/// The bar with its count; only the count when the whole is not known, or the terminal is narrow.
pub fn bar(message: &ProgressMessage, columns: usize) -> String {
    let Some(detail) = &message.progress_detail else {
        return String::new();
    };
    let (current, total) = (detail.current.max(0) as f64, detail.total.max(0) as f64);
    let now = size::decimal(current);
    if total <= 0.0 || current > total {
        return format!("{now:>8}");
    }
    let counts = format!("{now:>8}/{}", size::decimal(total));
    if columns <= ROOM {
        return counts;
    }
    let done = (current / total * CELLS as f64) as usize;
    let arrow = if done < CELLS { ">" } else { "" };
    let rest = CELLS.saturating_sub(done + 1);
    format!("[{}{arrow}{}] {counts}", "=".repeat(done), " ".repeat(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(current: i64, total: i64) -> ProgressMessage {
        let text =
            format!(r#"{{"status":"x","progressDetail":{{"current":{current},"total":{total}}},"id":"a"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn bars_of_every_length() {
        let half = bar(&message(500_000, 1_000_000), 120);
        assert_eq!(
            half,
            format!("[{}>{}]    500kB/1MB", "=".repeat(25), " ".repeat(24))
        );
        assert_eq!(bar(&message(500_000, 1_000_000), 80), "   500kB/1MB");
        assert_eq!(
            bar(&message(10, 10), 120),
            format!("[{}]      10B/10B", "=".repeat(50))
        );
        assert_eq!(bar(&message(2_000, 0), 120), "     2kB");
        assert!(counted(&message(1, 0)) && !counted(&message(0, 0)));
    }
}
