//! Where results go: Markdown on standard output and, if asked for, at the end of a file; progress on standard error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use crate::failure::{During, Failure, Result};

pub(crate) struct Report {
    file: Option<File>,
    failures: usize,
}

impl Report {
    /// A report that is appended to the file at `path`, too.
    pub(crate) fn new(path: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new().append(true).create(true).open(path).during(|| path.display().to_string())
        };
        Ok(Self { file: path.map(open).transpose()?, failures: 0 })
    }

    /// Says that a server could not be measured, in its line of `table`; the others still are.
    pub(crate) fn failed(&mut self, table: &mut Table, server: &str, failure: &Failure) {
        eprintln!("side-by-side: {failure}");
        self.failures += 1;
        let mut cells = vec!["failed".to_owned(); table.header.len()];
        cells[0] = server.to_owned();
        table.line(cells);
    }

    /// Ends the report.
    ///
    /// # Errors
    /// If something could not be measured.
    pub(crate) fn finish(self) -> Result<()> {
        match self.failures {
            0 => Ok(()),
            count => Err(Failure::new(format!("{count} measurements failed; see above"))),
        }
    }

    /// Writes a heading, what is to know, and a table.
    pub(crate) fn table(&mut self, title: &str, remark: &str, table: &Table) -> Result<()> {
        let text = format!("\n### {title}\n\n{remark}\n\n{}", table.markdown());
        io::stdout().write_all(text.as_bytes()).during(|| "writing to standard output".into())?;
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes()).during(|| "writing the report".into())?;
        }
        Ok(())
    }
}

/// A table: first columns of text, then columns of figures.
pub(crate) struct Table {
    text_columns: usize,
    header: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Table {
    /// A table with this header, whose first `text_columns` columns are text.
    pub(crate) fn new<const WIDTH: usize>(text_columns: usize, header: [&str; WIDTH]) -> Self {
        Self { text_columns, header: header.map(str::to_owned).into(), lines: Vec::new() }
    }

    /// Adds a line.
    ///
    /// # Panics
    /// If it has another number of cells than the header.
    pub(crate) fn line(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.header.len(), "a cell for every column");
        self.lines.push(cells);
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.header);
        let rule = |column| if column < self.text_columns { "---" } else { "---:" }.to_owned();
        text.push_str(&line(&(0..self.header.len()).map(rule).collect::<Vec<_>>()));
        self.lines.iter().for_each(|cells| text.push_str(&line(cells)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(1, ["a", "b"]);
        table.line(["x".to_owned(), "1".to_owned()]);
        assert_eq!(table.markdown(), "| a | b |\n| --- | ---: |\n| x | 1 |\n");
    }
}
