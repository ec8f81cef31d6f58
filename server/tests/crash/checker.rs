//! The crash test's own judges find what they are there to find.

use crate::support::model::{Keys, Request, explain};
use crate::support::shared::{Attempt, Group};

fn request(line: &str) -> Request {
    let words: Vec<&str> = line.split(' ').collect();
    let pairs = || words[1..].chunks(2).map(|pair| (pair[0].to_owned(), pair[1].into())).collect();
    match words[0] {
        "SET" => Request::Set(words[1].to_owned(), words[2].into(), None),
        "APPEND" => Request::Append(words[1].to_owned(), words[2].into()),
        "MSET" => Request::SetAll(pairs()),
        "DEL" => Request::Delete(vec![words[1].to_owned()]),
        "RENAME" => Request::Rename(words[1].to_owned(), words[2].to_owned()),
        "FLUSHDB" => Request::Flush,
        other => panic!("{other} is not used here"),
    }
}

fn keys(lines: &[&str]) -> Keys {
    let mut keys = Keys::new();
    lines.iter().for_each(|line| drop(request(line).apply(&mut keys)));
    keys
}

fn is_explained(acknowledged: &[&str], in_doubt: &[&str], found: &[&str]) -> bool {
    let in_doubt: Vec<Request> = in_doubt.iter().map(|line| request(line)).collect();
    explain(&keys(acknowledged), &in_doubt, &keys(found)).is_ok()
}

#[test]
fn what_was_acknowledged_must_be_there() {
    assert!(is_explained(&["SET {a}1 x"], &[], &["SET {a}1 x"]));
    assert!(!is_explained(&["SET {a}1 x"], &[], &[]));
    assert!(!is_explained(&["SET {a}1 x", "SET {a}1 y"], &[], &["SET {a}1 x"]));
    assert!(!is_explained(&["SET {a}1 x", "DEL {a}1"], &[], &["SET {a}1 x"]));
    assert!(!is_explained(&[], &[], &["SET {a}1 x"]));
    assert!(!is_explained(&["SET {a}1 x"], &["SET {a}1 y"], &["SET {a}1 z"]));
}

#[test]
fn what_is_in_doubt_may_be_there() {
    for found in ["SET {a}1 x", "SET {a}1 y", "SET {a}1 yz"] {
        assert!(is_explained(&["SET {a}1 x"], &["SET {a}1 y", "APPEND {a}1 z"], &[found]));
    }
    // The second without the first, and the first after the second.
    assert!(!is_explained(&["SET {a}1 x"], &["SET {a}1 y", "APPEND {a}1 z"], &["SET {a}1 xz"]));
    assert!(!is_explained(&[], &["SET {a}1 y", "SET {a}2 z"], &["SET {a}2 z"]));
    assert!(is_explained(&[], &["SET {a}1 y", "SET {b}1 z"], &["SET {b}1 z"]));
    assert!(!is_explained(&["SET {a}1 x"], &["FLUSHDB", "SET {b}1 z"], &["SET {a}1 x", "SET {b}1 z"]));
}

#[test]
fn requests_over_several_keys_are_whole() {
    let mset = "MSET {a}1 x {b}1 x";
    assert!(is_explained(&[], &[mset], &[]));
    assert!(is_explained(&[], &[mset], &[mset]));
    assert!(!is_explained(&[], &[mset], &["SET {b}1 x"]));
    let rename = "RENAME {a}1 {b}1";
    assert!(is_explained(&["SET {a}1 x"], &[rename], &["SET {b}1 x"]));
    assert!(!is_explained(&["SET {a}1 x"], &[rename], &["SET {a}1 x", "SET {b}1 x"]));
    assert!(!is_explained(&["SET {a}1 x"], &[rename], &[]));
}

#[test]
fn a_group_keeps_what_was_acknowledged_or_seen() {
    let attempt = |value, begin, end| Attempt { value, begin, end };
    let mut group = Group::new(7);
    assert!(group.check(7).is_ok());
    assert!(group.check(8).is_err(), "nobody wrote it");
    group.attempted(attempt(1, 10, 20));
    group.attempted(attempt(2, 15, 30));
    group.attempted(attempt(3, 12, u64::MAX));
    assert!(group.check(7).is_err(), "it was overwritten");
    // They overlap, so either may have been the last one.
    assert!([1, 2, 3].iter().all(|&value| group.check(value).is_ok()));
    group.attempted(attempt(4, 21, 40));
    assert!(group.check(1).is_err(), "4 began when it was complete");
    assert!([2, 3, 4].iter().all(|&value| group.check(value).is_ok()));
    group.observed(41, 3);
    assert!([1, 2, 4].iter().all(|&value| group.check(value).is_err()), "3 was seen after all of them");
    assert!(group.check(3).is_ok());
}
