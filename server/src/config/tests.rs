//! What holds for the whole table, and that the documentation agrees with it.

use super::{
    AppendFsync, ClusterRouting, Config, Consistency, ForceNewCluster, LogFormat, LogLevel, Password,
    RaftDurability, RaftReadMode, Recovery,
    options::{Change, ConfigOption, Form, OPTIONS},
};

const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

#[test]
fn names_are_unique_lower_case_and_found_in_any_case() {
    for (index, option) in OPTIONS.iter().enumerate() {
        assert!(option.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", option.name);
        assert!(
            OPTIONS[..index].iter().all(|other| other.name != option.name),
            "{} is there twice",
            option.name
        );
        let found = ConfigOption::find(option.name.to_ascii_uppercase().as_bytes()).unwrap();
        assert!(std::ptr::eq(found, option));
    }
    assert!(ConfigOption::find(b"").is_none());
}

#[test]
fn the_table_and_the_default_configuration_agree() {
    for option in
        OPTIONS.iter().filter(|option| option.is_settable_at_start() && !option.default.starts_with('('))
    {
        let mut config = Config::default();
        (option.parse)(&mut config, option.default.as_bytes())
            .unwrap_or_else(|reason| panic!("{}: {reason}", option.name));
        assert_eq!(config, Config::default(), "{}", option.name);
    }
}

#[test]
fn what_is_printed_can_be_read_again() {
    for option in OPTIONS.iter().filter(|option| option.is_settable_at_start()) {
        let mut config = Config::default();
        (option.parse)(&mut config, &(option.print)(&Config::default()))
            .unwrap_or_else(|reason| panic!("{}: {reason}", option.name));
        assert_eq!(config, Config::default(), "{}", option.name);
    }
}

#[test]
fn a_refused_value_leaves_the_configuration_alone() {
    for option in OPTIONS.iter().filter(|option| option.name != "requirepass") {
        let mut config = Config::default();
        (option.parse)(&mut config, b"\xff\xff 1 2 3").expect_err(option.name);
        assert_eq!(config, Config::default(), "{}", option.name);
    }
}

#[test]
fn forms_fit_what_the_table_says_of_them() {
    for option in OPTIONS {
        assert!(
            !option.meaning.ends_with('.') && option.meaning.starts_with(char::is_uppercase),
            "{}",
            option.name
        );
        let is_number = matches!(option.form, Form::Integer | Form::Bytes | Form::Octal);
        if is_number && !option.default.starts_with('(') {
            assert!(option.default.starts_with(|first: char| first.is_ascii_digit()), "{}", option.name);
        }
    }
}

#[test]
fn names_of_choices_follow_their_declaration() {
    for (level, name, _) in LogLevel::NAMES {
        assert_eq!(level.name(), name);
    }
    for (format, name, _) in LogFormat::NAMES {
        assert_eq!(format.name(), name);
    }
    for (when, name, _) in AppendFsync::NAMES {
        assert_eq!(when.name(), name);
    }
    for (how, name, _) in Recovery::NAMES {
        assert_eq!(how.name(), name);
    }
    for (how, name, _) in ForceNewCluster::NAMES {
        assert_eq!(how.name(), name);
    }
    for (routing, name, _) in ClusterRouting::NAMES {
        assert_eq!(routing.name(), name);
    }
    for (level, name, _) in Consistency::NAMES {
        assert_eq!(level.name(), name);
        assert_eq!(Consistency::of_name(name.to_uppercase().as_bytes()), Some(level));
    }
    for (durability, name, _) in RaftDurability::NAMES {
        assert_eq!(durability.name(), name);
    }
    for (mode, name, _) in RaftReadMode::NAMES {
        assert_eq!(mode.name(), name);
    }
}

#[test]
fn passwords_match_themselves_alone() {
    let password = Password::new(b"secret");
    assert!(password.matches(b"secret"));
    for other in ["", "s", "secre", "secret\0", "Secret", "secrets"] {
        assert!(!password.matches(other.as_bytes()), "{other}");
    }
    assert!(Password::default().matches(b"") && Password::default().is_empty());
    assert_eq!(format!("{password:?} {:?}", Password::default()), "(hidden) (none)");
}

#[test]
fn the_documentation_has_a_row_for_every_option_and_no_other() {
    let rows: Vec<Vec<&str>> = DOCUMENTATION
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for option in OPTIONS {
        let name = format!("`{}`", option.name);
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row for {name}"));
        let default = match option.default {
            "" => "empty".to_owned(),
            described if described.starts_with('(') => described.trim_matches(['(', ')']).to_owned(),
            text => format!("`{text}`"),
        };
        let (flag, variable) = if option.is_settable_at_start() {
            (format!("`--{}`", option.name), format!("`{}`", option.variable()))
        } else {
            ("-".to_owned(), "-".to_owned())
        };
        let at_run_time = if option.change == Change::RunTime { "yes" } else { "no" };
        assert_eq!(row[1..5], [&*default, &*flag, &*variable, at_run_time], "{name}");
        assert!(!row[5].is_empty(), "{name} has no meaning");
    }
    assert_eq!(rows.len(), OPTIONS.len(), "a row without an option");
}

#[test]
fn lengths_beyond_what_a_request_can_hold_are_bounded() {
    let mut config = Config::default();
    assert_eq!((config.argument_bytes_max(), config.request_bytes_max()), (512 << 20, 1 << 30));
    (config.bulk_len_bytes_max, config.query_buffer_bytes_max) = (u64::MAX, u64::MAX);
    // All places in the largest request, and the lengths that precede its arguments in the journal, fit 32 bits.
    assert!(config.request_bytes_max() + (1 << 29) < u64::from(u32::MAX));
    assert!(config.argument_bytes_max() < config.request_bytes_max());
}
