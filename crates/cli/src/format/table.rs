//! Columns as Go's text/tabwriter aligns them: a cell ends with a tab, a column reaches as far as consecutive lines
//! have a cell in it, and is as wide as its widest cell plus the padding.

/// Docker's tables: at least 10 wide, 3 spaces between.
pub const DOCKER: Layout = Layout {
    minimum: 10,
    padding: 3,
};
/// Tight tables (`top`).
pub const TOP: Layout = Layout {
    minimum: 20,
    padding: 3,
};

#[derive(Clone, Copy)]
pub struct Layout {
    pub minimum: usize,
    pub padding: usize,
}

/// Aligns lines of tab-separated cells.
pub fn align(text: &str, layout: Layout) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|_| Vec::new()).collect();
    columns(&lines, &mut widths, 0, lines.len(), 0, layout);
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (line, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < line.len() {
                let width = widths.get(column).copied().unwrap_or(0);
                let length = cell.chars().count();
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(length)));
            }
        }
    }
    out
}

/// Fills in the widths of column `column` for every block of lines within `from..to` that has a cell there.
fn columns(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    from: usize,
    to: usize,
    column: usize,
    layout: Layout,
) {
    let mut at = from;
    while at < to {
        let has = |index: usize| lines.get(index).is_some_and(|line| column + 1 < line.len());
        if !has(at) {
            at += 1;
            continue;
        }
        let start = at;
        let mut width = layout.minimum;
        while at < to && has(at) {
            let length = lines
                .get(at)
                .and_then(|line| line.get(column))
                .map_or(0, |cell| cell.chars().count());
            width = width.max(length + layout.padding);
            at += 1;
        }
        for slot in widths.get_mut(start..at).unwrap_or_default() {
            slot.push(width);
        }
        columns(lines, widths, start, at, column + 1, layout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_as_tabwriter() {
        assert_eq!(
            align("ID\tNAMES\nabc\ta-rather-long-name\nx\ty", DOCKER),
            "ID        NAMES\nabc       a-rather-long-name\nx         y"
        );
        assert_eq!(
            align("REPOSITORY\tTAG\tX\nb\tc\td\n", DOCKER),
            "REPOSITORY   TAG       X\nb            c         d\n"
        );
    }
}
