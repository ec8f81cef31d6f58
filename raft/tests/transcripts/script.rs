//! A transcript's text: comments, commands, and what was printed for each command.
//!
//! - A line that begins with `# ` is a comment.
//! - A line that begins with `> ` is a command.
//! - Every other line that is not empty is output of the command above it.

use std::fmt::Write as _;

/// A transcript, taken apart.
pub struct Script {
    parts: Vec<Part>,
}

/// What a transcript consists of.
enum Part {
    /// A comment or an empty line, as it stands.
    Text(String),
    Command(Command),
}

/// A command with the output that the file has for it.
struct Command {
    line: usize,
    words: String,
    output: Vec<String>,
}

impl Script {
    /// Takes a file's text apart.
    pub fn parse(text: &str) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(words) = line.strip_prefix("> ") {
                let command =
                    Command { line: number + 1, words: words.trim().to_owned(), output: Vec::new() };
                parts.push(Part::Command(command));
            } else if line.is_empty() || line.starts_with('#') {
                parts.push(Part::Text(line.to_owned()));
            } else {
                match parts.last_mut() {
                    Some(Part::Command(command)) => command.output.push(line.to_owned()),
                    _ => panic!("line {} is output of no command: {line}", number + 1),
                }
            }
        }
        Self { parts }
    }

    /// Runs every command. Returns the file as it should be, and a description of every difference.
    pub fn run(&self, mut run: impl FnMut(&str) -> Vec<String>) -> (String, Vec<String>) {
        let mut text = String::new();
        let mut differences = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(line) => writeln!(text, "{line}").expect("a string takes everything"),
                Part::Command(command) => {
                    let output = run(&command.words);
                    // Anything else would be read as another part of the file.
                    let is_output = |line: &String| !line.is_empty() && !line.starts_with(['#', '>']);
                    assert!(output.iter().all(is_output), "{:?} prints no output lines", command.words);
                    writeln!(text, "> {}", command.words).expect("a string takes everything");
                    for line in &output {
                        writeln!(text, "{line}").expect("a string takes everything");
                    }
                    if output != command.output {
                        differences.push(command.difference(&output));
                    }
                }
            }
        }
        (text, differences)
    }
}

impl Command {
    /// What the file has and what came, without the lines that both begin and end with.
    fn difference(&self, output: &[String]) -> String {
        let begin = self.output.iter().zip(output).take_while(|(expected, found)| expected == found).count();
        let (expected, found) = (&self.output[begin..], &output[begin..]);
        let end = expected.iter().rev().zip(found.iter().rev()).take_while(|(a, b)| a == b).count();
        let mut text = format!("line {}: > {}\n", self.line, self.words);
        for line in &expected[..expected.len() - end] {
            writeln!(text, "  - {line}").expect("a string takes everything");
        }
        for line in &found[..found.len() - end] {
            writeln!(text, "  + {line}").expect("a string takes everything");
        }
        text
    }
}
