//! Tokens that move between keys: none is lost, none is there twice.

use std::collections::BTreeMap;

use crate::sim::resp::Reply;

/// Checks the reply of an MGET of all places: `count` tokens, numbered from 0, each in one place.
///
/// # Errors
/// Which token is missing or there twice.
pub(crate) fn check_places(reply: &Reply, count: usize) -> Result<(), String> {
    let Reply::Array(places) = reply else { return Err(format!("MGET was answered {}", reply.shown())) };
    match found(places, count)?.iter().position(|is_there| !is_there) {
        Some(number) => Err(format!("{} is lost: {}", name(number).escape_ascii(), reply.shown())),
        None => Ok(()),
    }
}

/// Which of `count` tokens are in these places.
///
/// # Errors
/// Which token is there twice, or what is none.
pub(crate) fn found(places: &[Reply], count: usize) -> Result<Vec<bool>, String> {
    let mut seen: BTreeMap<&[u8], usize> = BTreeMap::new();
    for place in places {
        match place {
            Reply::Nil => {}
            Reply::Bulk(token) => *seen.entry(token).or_default() += 1,
            other => return Err(format!("a place holds {}", other.shown())),
        }
    }
    let shown = || Reply::Array(places.to_vec()).shown();
    if let Some((token, times)) = seen.iter().find(|(_, times)| **times > 1) {
        return Err(format!("{} is in {times} places: {}", token.escape_ascii(), shown()));
    }
    let is_there: Vec<bool> = (0..count).map(|number| seen.contains_key(&name(number)[..])).collect();
    let known = is_there.iter().filter(|is_there| **is_there).count();
    if seen.len() == known { Ok(is_there) } else { Err(format!("unknown tokens: {}", shown())) }
}

/// Token `number`.
pub(crate) fn name(number: usize) -> Vec<u8> {
    format!("token{number}").into_bytes()
}

/// Checks the reply of SCANs that ended, or of KEYS: every one of `wanted` is there.
///
/// # Errors
/// The key that is missing.
pub(crate) fn check_keys(found: &[Vec<u8>], wanted: &[Vec<u8>]) -> Result<(), String> {
    match wanted.iter().find(|key| !found.contains(key)) {
        Some(key) => Err(format!("{} was there all the time and is missing", key.escape_ascii())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(tokens: &[Option<usize>]) -> Reply {
        Reply::Array(
            tokens.iter().map(|token| token.map_or(Reply::Nil, |number| Reply::Bulk(name(number)))).collect(),
        )
    }

    #[test]
    fn each_token_is_in_one_place() {
        assert_eq!(check_places(&places(&[Some(1), None, Some(0)]), 2), Ok(()));
        assert!(check_places(&places(&[Some(1), None, None]), 2).is_err(), "lost");
        assert!(check_places(&places(&[Some(1), Some(1), Some(0)]), 2).is_err(), "doubled");
        assert!(check_places(&places(&[Some(2), Some(1), Some(0)]), 2).is_err(), "from nowhere");
        assert!(check_places(&Reply::Nil, 0).is_err());
    }

    #[test]
    fn keys_that_stay_are_found() {
        let keys = [b"a".to_vec(), b"b".to_vec()];
        assert_eq!(check_keys(&[b"b".to_vec(), b"x".to_vec(), b"a".to_vec()], &keys), Ok(()));
        assert!(check_keys(&[b"b".to_vec(), b"x".to_vec()], &keys).is_err());
    }
}
