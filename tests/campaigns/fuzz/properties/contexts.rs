//! The canonical JSON of effects' contexts, on which their keys depend.

use ingestd::job::{CanonicalJson, LARGEST_CONTEXT_BYTES};
use serde_json::Value;

/// A context is refused, or written in the one way, which reads back as what it said; and two contexts are the same
/// text only if they say the same.
pub fn contexts(one: &str, other: &str) {
    let (Some(first), Some(second)) = (canonical(one), canonical(other)) else { return };
    if first == second {
        assert_eq!(said(one), said(other), "two contexts, one key");
    }
}

fn canonical(text: &str) -> Option<String> {
    let Ok(canonical) = CanonicalJson::read(text, LARGEST_CONTEXT_BYTES) else { return None };
    let written = canonical.as_str();
    assert!(written.len() <= LARGEST_CONTEXT_BYTES);
    let again = CanonicalJson::read(written, LARGEST_CONTEXT_BYTES);
    assert_eq!(again.as_ref().map(CanonicalJson::as_str), Ok(written), "read again, it is another text");
    assert_eq!(said(text), said(written), "it says something else: {text} became {written}");
    Some(written.to_owned())
}

/// What a sound document says: its text with every number as digits and exponent, names sorted, the last one counting.
fn said(text: &str) -> String {
    let value: Value = serde_json::from_str(&numbers_as_text(text)).unwrap();
    value.to_string()
}

/// The document with each number as a text that says how much it is, so that no double can blur it.
fn numbers_as_text(text: &str) -> String {
    let (mut out, mut number, mut in_string, mut escaped) = (String::new(), String::new(), false, false);
    for character in text.chars().chain(std::iter::once(' ')) {
        if !in_string && (character.is_ascii_digit() || "+-.".contains(character) || exponent(&number, character)) {
            number.push(character);
            continue;
        }
        if !number.is_empty() {
            out.extend(["\"#", &amount(&std::mem::take(&mut number)), "\""]);
        }
        out.push(character);
        if in_string && !escaped && character == '\\' {
            escaped = true;
            continue;
        }
        in_string ^= character == '"' && !escaped;
        escaped = false;
    }
    out
}

fn exponent(number: &str, character: char) -> bool {
    !number.is_empty() && matches!(character, 'e' | 'E')
}

/// Sign, digits without zeros around them, and the exponent behind them; integers apart from the others.
fn amount(number: &str) -> String {
    let (sign, rest) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let kind = if number.contains(['.', 'e', 'E']) || number == "-0" { "f" } else { "i" };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return format!("{kind}{sign}0");
    }
    let behind = digits.len() - digits.trim_end_matches('0').len();
    let exponent: i128 = exponent.parse().unwrap();
    format!("{kind}{sign}{significant}e{}", exponent - part.len() as i128 + behind as i128)
}
