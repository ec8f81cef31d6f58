//! The configuration file: TOML whose keys are the options' names.
//!
//! Values become the text that a flag would have, so that the option's own parser reads them; this module only decides
//! which TOML types an option takes. Settings come out in the order of the file, so that errors do as well.

use toml::de::{DeTable, DeValue};

use super::options::{Change, ConfigOption, Form};

/// One setting of a file.
pub(super) struct Setting {
    /// The option.
    pub(super) option: &'static ConfigOption,
    /// Its value as text.
    pub(super) text: String,
    /// Its line, from 1 on.
    pub(super) line: usize,
}

/// Why a file is refused.
#[derive(Debug)]
pub(super) struct FileError {
    /// The line, from 1 on.
    pub(super) line: usize,
    /// What is wrong there.
    pub(super) sentence: String,
}

/// The settings in the text of a file.
pub(super) fn settings(text: &str) -> Result<Vec<Setting>, FileError> {
    let document = DeTable::parse(text).map_err(|error| FileError {
        line: line_of(text, error.span().map_or(text.len(), |span| span.start)),
        sentence: format!("not valid TOML: {}", error.message()),
    })?;
    let mut entries: Vec<_> = document.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| {
            let line = line_of(text, key.span().start);
            setting(key.get_ref(), value.get_ref())
                .map(|(option, text)| Setting { option, text, line })
                .map_err(|sentence| FileError { line, sentence })
        })
        .collect()
}

fn setting(key: &str, value: &DeValue<'_>) -> Result<(&'static ConfigOption, String), String> {
    // Unlike CONFIG SET, a file knows one spelling: two spellings of a key would be two keys to TOML.
    let Some(option) = ConfigOption::find(key.as_bytes()).filter(|option| option.name == key) else {
        return Err(unknown(key, value));
    };
    match option.change {
        Change::Never => return Err(format!("'{key}' cannot be set: {}", option.meaning)),
        Change::OneStart => {
            return Err(format!(
                "'{key}' is meant for one start, and a file would keep it for all: use the flag --{key}"
            ));
        }
        Change::RunTime | Change::Start | Change::StartProtected => {}
    }
    let text = text_of(value, option.form).ok_or_else(|| {
        let (expects, given) = (option.expects, type_name(value));
        format!("'{key}' must be {expects}, not {given}")
    })?;
    Ok((option, text))
}

fn unknown(key: &str, value: &DeValue<'_>) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!("unexpected table [{key}]: every option is a key at the top level");
    }
    match ConfigOption::find(key.replace('_', "-").as_bytes()) {
        Some(option) => format!("unknown key '{key}': did you mean '{}'?", option.name),
        None => format!("unknown key '{key}': expected the name of an option, which --help lists"),
    }
}

fn text_of(value: &DeValue<'_>, form: Form) -> Option<String> {
    match (form, value) {
        (Form::Integer | Form::Bytes, DeValue::Integer(_)) => integer_text(value),
        (Form::Octal, DeValue::Integer(integer)) if integer.radix() == 8 => Some(integer.as_str().to_owned()),
        (Form::YesNo | Form::Switch, DeValue::Boolean(is_yes)) => {
            Some(if *is_yes { "yes" } else { "no" }.to_owned())
        }
        (Form::List(separator), DeValue::Array(elements)) => {
            let texts: Option<Vec<String>> = elements
                .iter()
                .map(|element| match element.get_ref() {
                    DeValue::String(text) => Some(text.clone().into_owned()),
                    element => integer_text(element),
                })
                .collect();
            texts.map(|texts| texts.join(separator))
        }
        (Form::Integer, _) => None,
        (_, DeValue::String(text)) => Some(text.clone().into_owned()),
        _ => None,
    }
}

/// An integer in decimal; none for other types. One that does not fit keeps its digits: the option's parser refuses it
/// with the proper words.
fn integer_text(value: &DeValue<'_>) -> Option<String> {
    let DeValue::Integer(integer) = value else { return None };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    Some(number.map_or_else(|| integer.as_str().to_owned(), |number| number.to_string()))
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array like this one",
        DeValue::Table(_) => "a table",
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&'static str, String, usize)> {
        let settings = settings(text).unwrap_or_else(|error| panic!("{error:?}"));
        settings.into_iter().map(|setting| (setting.option.name, setting.text, setting.line)).collect()
    }

    fn refusal(text: &str) -> (usize, String) {
        match settings(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => (error.line, error.sentence),
        }
    }

    #[test]
    fn every_form_becomes_the_text_of_a_flag() {
        let cases = [
            ("port = 6_380", "6380"),
            ("port = 0x10", "16"),
            ("maxclients = -1", "-1"),
            (
                "maxclients = 99999999999999999999999999999999999999999",
                "99999999999999999999999999999999999999999",
            ),
            ("proto-max-bulk-len = \"64mb\"", "64mb"),
            ("proto-max-bulk-len = 67108864", "67108864"),
            ("unixsocketperm = 0o770", "770"),
            ("unixsocketperm = \"770\"", "770"),
            ("appendonly = false", "no"),
            ("appendonly = \"yes\"", "yes"),
            ("bind = \"::1\"", "::1"),
            ("bind = [\"127.0.0.1\", \"-::1\"]", "127.0.0.1 -::1"),
            ("bind = []", ""),
            ("cpus = [0, 2, \"4-5\"]", "0,2,4-5"),
            (
                "client-output-buffer-limit = [\"normal 0 0 0\", \"pubsub 1mb 0 0\"]",
                "normal 0 0 0 pubsub 1mb 0 0",
            ),
            ("requirepass = 'a\\b'", "a\\b"),
        ];
        for (text, expected) in cases {
            assert_eq!(texts(text)[0].1, expected, "{text}");
        }
    }

    #[test]
    fn settings_come_in_the_order_of_the_file_with_their_lines() {
        let found = texts("# Comment.\ntimeout = 1\n\nbind = [\n  \"::1\",\n]\ncores = 2\n");
        let found: Vec<_> = found.iter().map(|(name, _, line)| (*name, *line)).collect();
        assert_eq!(found, [("timeout", 2), ("bind", 4), ("cores", 7)]);
    }

    #[test]
    fn wrong_types_are_refused_with_what_is_expected() {
        let cases = [
            ("port = \"1\"", "'port' must be an integer from 0 to 65535, not a string"),
            ("port = 1.5", "'port' must be an integer from 0 to 65535, not a float"),
            ("port = true", "'port' must be an integer from 0 to 65535, not a boolean"),
            ("port = [1]", "'port' must be an integer from 0 to 65535, not an array like this one"),
            ("port = 1979-05-27", "'port' must be an integer from 0 to 65535, not a date"),
            ("port = { a = 1 }", "'port' must be an integer from 0 to 65535, not a table"),
            ("dir = 1", "'dir' must be the path of a directory, not an integer"),
            ("bind = [true]", "'bind' must be a list of IP addresses, * or ::*, not an array like this one"),
            (
                "unixsocketperm = 700",
                "'unixsocketperm' must be octal digits in a string, such as \"700\", or an octal integer, such as \
                 0o700, not an integer",
            ),
            (
                "proto-max-bulk-len = true",
                "'proto-max-bulk-len' must be a number of bytes such as \"64mb\", 1mb or more, not a boolean",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal(text), (1, expected.to_owned()));
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_a_hint_where_there_is_one() {
        let cases = [
            ("foo = 1", 1, "unknown key 'foo': expected the name of an option, which --help lists"),
            ("port = 1\ntcp_keepalive = 1", 2, "unknown key 'tcp_keepalive': did you mean 'tcp-keepalive'?"),
            ("Port = 1", 1, "unknown key 'Port': did you mean 'port'?"),
            ("[network]\nport = 1", 1, "unexpected table [network]: every option is a key at the top level"),
            (
                "databases = 16",
                1,
                "'databases' cannot be set: Databases that clients can SELECT; their number is fixed",
            ),
            (
                "recover = \"truncate\"",
                1,
                "'recover' is meant for one start, and a file would keep it for all: use the flag --recover",
            ),
        ];
        for (text, line, expected) in cases {
            assert_eq!(refusal(text), (line, expected.to_owned()));
        }
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        for (text, expected_line) in
            [("port = 1\nmaxclients 5\n", 2), ("port = 1\nport = 2\n", 2), ("port =", 1)]
        {
            let (line, sentence) = refusal(text);
            assert_eq!(line, expected_line, "{sentence}");
            assert!(sentence.starts_with("not valid TOML: "), "{sentence}");
        }
    }
}
