//! Glob patterns as Redis matches them.
//!
//! `*` any bytes, `?` one byte, `[a-z]` a class, `[^a-z]` its complement, `\x` the byte x. A pattern is a sequence of
//! matchers of one byte each and stars between them, so going back to the last star is enough, and time is
//! bounded by the product of the lengths where Redis's recursion needs a stop of its own.
//!
//! What looks odd is Redis's behaviour, which clients may rely on: an unclosed class ends with the pattern,
//! the ends of a range may come in either order and compare as signed bytes, and no star matches a text that is empty
//! from the start (KEYS and SCAN treat the pattern `*` apart).

/// Whether `text` matches a Redis glob pattern.
pub fn glob_match(pattern: &[u8], text: &[u8]) -> bool {
    matches(pattern, text, |byte| byte)
}

/// As [`glob_match`], and ASCII letters match in either case.
pub(crate) fn glob_match_any_case(pattern: &[u8], text: &[u8]) -> bool {
    matches(pattern, text, |byte| byte.to_ascii_lowercase())
}

fn matches(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut position) = (0, 0);
    // Where the pattern goes on behind the last star, and the text that this star has not swallowed yet.
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            star = Some((at, position));
            continue;
        }
        if at < pattern.len() {
            let (is_match, next) = match_one(pattern, at, text[position], fold);
            if is_match {
                at = next;
                position += 1;
                continue;
            }
        }
        match &mut star {
            None => return false,
            Some((behind, swallowed)) => {
                *swallowed += 1;
                at = *behind;
                position = *swallowed;
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the matcher at `at` of the pattern, which is not a star; returns also where the next
/// matcher begins.
fn match_one(pattern: &[u8], at: usize, byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> (bool, usize) {
    match pattern[at] {
        b'?' => (true, at + 1),
        b'[' => match_class(pattern, at + 1, byte, fold),
        b'\\' if at + 1 < pattern.len() => (fold(pattern[at + 1]) == fold(byte), at + 2),
        literal => (fold(literal) == fold(byte), at + 1),
    }
}

/// Matches one byte against a class whose content begins at `at`.
fn match_class(pattern: &[u8], mut at: usize, byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> (bool, usize) {
    let is_complement = pattern.get(at) == Some(&b'^');
    at += usize::from(is_complement);
    let mut is_member = false;
    loop {
        match pattern[at..] {
            [] => break,
            // An escaped byte is itself, whatever the case it is compared in.
            [b'\\', escaped, ..] => {
                is_member |= escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [one, b'-', other, ..] => {
                let [one, other, byte] = [one, other, byte].map(|end| fold(end).cast_signed());
                is_member |= (one.min(other)..=one.max(other)).contains(&byte);
                at += 3;
            }
            [member, ..] => {
                is_member |= fold(member) == fold(byte);
                at += 1;
            }
        }
    }
    (is_member != is_complement, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let table: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", false),
            ("*", "anything", true),
            ("**", "anything", true),
            ("a*", "a", true),
            ("*a", "a", true),
            ("a*?", "a", false),
            ("*?*", "a", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "hllo", true),
            ("h*llo", "heeello", true),
            ("h*l*o", "hello", true),
            ("*ab*ab", "aab-ab-abab", true),
            ("*ab*ab", "aab-aba", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[b-a]llo", "hallo", true),
            ("[a-", "-", true),
            ("[a-", "b", false),
            ("[a-]*", "_", true),
            ("[a", "a", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("[]", "a", false),
            ("[\\]]", "]", true),
            ("[\\-a]", "-", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("\\", "\\", true),
            ("a\\", "a\\", true),
            ("a", "A", false),
        ];
        for &(pattern, text, expected) in table {
            assert_eq!(glob_match(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(glob_match(b"[\x00-\xff]", b"\xff"));
        assert!(!glob_match(b"[\x00-\xff]", b"a"));
    }

    #[test]
    fn case_may_be_ignored() {
        assert!(glob_match_any_case(b"GET*", b"getrange"));
        assert!(glob_match_any_case(b"[A-C]?\\X", b"bzx"));
        assert!(!glob_match_any_case(b"[A-C]", b"d"));
    }

    #[test]
    fn many_stars_stay_fast() {
        let pattern = b"*a".repeat(2_000);
        let text = b"a".repeat(1_999);
        assert!(!glob_match(&pattern, &text));
    }

    proptest! {
        /// Literal text with stars strewn in matches itself.
        #[test]
        fn stars_match_what_they_stand_for(parts in prop::collection::vec("[a-c]{0,4}", 1..6), fill in "[a-c]{0,3}") {
            let text = parts.join(&fill);
            prop_assume!(!text.is_empty());
            prop_assert!(glob_match(parts.join("*").as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_a_pattern(pattern: Vec<u8>, text: Vec<u8>) {
            glob_match(&pattern, &text);
            glob_match_any_case(&pattern, &text);
        }
    }
}
