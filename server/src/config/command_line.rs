//! The command line, built from the table of options.

use clap::{Arg, ArgAction, Command};

use super::options::{ConfigOption, Form, OPTIONS};

/// The flag that names the configuration file.
pub(super) const CONFIG_FLAG: &str = "config";
/// The variable that names the configuration file.
pub(super) const CONFIG_VARIABLE: &str = "DUVA_CONFIG";
/// How wide the help's sentences run.
const HELP_COLUMNS: usize = 90;

const CLOSING: &str = "\
Every option can also be set by an environment variable (--tcp-keepalive by DUVA_TCP_KEEPALIVE) and, all but
--recover and --force-new-cluster, by a key of the TOML file that --config names (tcp-keepalive = 300). A flag
goes before a variable, and a variable before the file. Bytes may have a unit: 1k is 1000 and 1kb is 1024,
likewise m, mb, g and gb.";

/// The command line's description.
pub(super) fn command() -> Command {
    let config = Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("FILE")
        .help("TOML file to read options from [default: none]");
    Command::new("duva-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Redis-compatible key-value server")
        .after_help(CLOSING)
        .override_usage("duva-server [OPTIONS]")
        .next_line_help(true)
        .arg(config)
        .args(OPTIONS.iter().filter(|option| option.is_settable_at_start()).map(argument))
}

/// Values are only collected here: each is read by the option's own parser, in the order given, so that the last
/// one counts and limits of several classes add up.
fn argument(option: &ConfigOption) -> Arg {
    let default = if option.default.is_empty() { "empty" } else { option.default.trim_matches(['(', ')']) };
    let argument = Arg::new(option.name)
        .long(option.name)
        .value_name(option.placeholder)
        .help_heading(option.section)
        .help(wrap(&format!("{} [default: {default}]", option.meaning)))
        .action(ArgAction::Append)
        .allow_negative_numbers(true);
    match option.form {
        _ if option.takes_words() => argument.num_args(1..),
        Form::Switch => argument.num_args(0..=1).default_missing_value("yes"),
        _ => argument,
    }
}

fn wrap(sentence: &str) -> String {
    let mut wrapped = String::with_capacity(sentence.len());
    let mut column = 0;
    for word in sentence.split(' ') {
        if column > 0 {
            let is_full = column + 1 + word.len() > HELP_COLUMNS;
            wrapped.push(if is_full { '\n' } else { ' ' });
            column = if is_full { 0 } else { column + 1 };
        }
        wrapped.push_str(word);
        column += word.len();
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn help_shows_every_option_once_under_its_heading_and_within_the_width() {
        let help = command().render_help().to_string();
        for option in OPTIONS.iter().filter(|option| option.is_settable_at_start()) {
            let flag = if option.form == Form::Switch {
                format!("      --{} [<{}>]", option.name, option.placeholder)
            } else {
                format!("      --{} <{}>", option.name, option.placeholder)
            };
            let line = |line: &str| line.trim_end_matches("...") == flag;
            assert_eq!(help.lines().filter(|text| line(text)).count(), 1, "{flag} in:\n{help}");
            let heading = help.find(&format!("\n{}:\n", option.section)).expect(option.section);
            assert!(heading < help.find(&flag).unwrap(), "{flag} under {}", option.section);
        }
        assert!(help.contains("--config <FILE>") && help.contains("DUVA_TCP_KEEPALIVE"), "{help}");
        let longest = help.lines().map(str::len).max().unwrap();
        assert!(longest <= 115, "a line has {longest} columns");
    }

    #[test]
    fn wrapping_breaks_between_words_only() {
        let words: Vec<String> = (0..100).map(|number| "x".repeat(number % 13 + 1)).collect();
        let wrapped = wrap(&words.join(" "));
        assert_eq!(wrapped.split([' ', '\n']).collect::<Vec<_>>(), words);
        assert!(wrapped.lines().all(|line| line.len() <= HELP_COLUMNS && !line.ends_with(' ')));
        assert_eq!(wrap("one two"), "one two");
    }
}
