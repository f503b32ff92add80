//! What a key accepts: a [`Form`] reads a value, says what is allowed, and writes a value the way a file would.
//!
//! Files are read strictly: a number in quotes is not a number. The environment only has strings, so there a
//! string is read as whatever the key asks for (`INGESTD__QUEUE__CONCURRENCY=4`, `…__EVENTS=["add"]`).

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};

use super::layers::structured;
use super::masks::without_passwords;

/// One second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// One day.
pub(super) const DAY: Duration = Duration::from_hours(24);
/// Longer than anything runs, and short enough that no sum of times overflows.
pub(super) const CENTURY: Duration = Duration::from_hours(36_500 * 24);

/// A value as it was written.
pub(super) struct Raw<'a> {
    /// The value.
    pub kind: &'a ValueKind,
    /// Whether a string may stand for another type.
    pub loose: bool,
}

impl Raw<'_> {
    pub fn text(&self) -> Option<String> {
        match self.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn boolean(&self) -> Option<bool> {
        match self.kind {
            ValueKind::Boolean(value) => Some(*value),
            ValueKind::String(text) if self.loose => text.parse().ok(),
            _ => None,
        }
    }

    fn integer(&self) -> Option<u64> {
        match self.kind {
            ValueKind::I64(value) => u64::try_from(*value).ok(),
            ValueKind::U64(value) => Some(*value),
            ValueKind::String(text) if self.loose => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        let value = match self.kind {
            ValueKind::Float(value) => *value,
            ValueKind::String(text) if self.loose => text.trim().parse().ok()?,
            #[expect(clippy::cast_precision_loss, reason = "whatever is that large is refused as too large")]
            _ => self.integer()? as f64,
        };
        value.is_finite().then_some(value)
    }

    /// The items of a list; a loose string is read as a JSON or TOML array.
    fn list(&self) -> Option<Vec<Value>> {
        match self.kind {
            ValueKind::Array(items) => Some(items.clone()),
            ValueKind::String(text) if self.loose => match structured("", text)?.kind {
                ValueKind::Array(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }
}

type Parse<T> = Box<dyn Fn(&Raw<'_>) -> Option<T>>;

/// What a key accepts.
pub(super) struct Form<T> {
    /// For people: `a duration from 1s to 1d, such as "90s"`.
    pub allowed: String,
    /// Reads a value; `None`: not allowed.
    pub parse: Parse<T>,
    /// The value as TOML.
    pub show: Box<dyn Fn(&T) -> String>,
}

impl<T: 'static> Form<T> {
    pub fn new(
        allowed: impl Into<String>,
        parse: impl Fn(&Raw<'_>) -> Option<T> + 'static,
        show: impl Fn(&T) -> String + 'static,
    ) -> Self {
        Self { allowed: allowed.into(), parse: Box::new(parse), show: Box::new(show) }
    }
}

/// `true` or `false`.
#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the method by itself is not general enough in its lifetime"
)]
pub(super) fn boolean() -> Form<bool> {
    Form::new("true or false", |raw| raw.boolean(), ToString::to_string)
}

/// A whole number in a range.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> Form<T>
where
    T: TryFrom<u64> + PartialOrd + ToString + Copy + Debug + 'static,
{
    let allowed = format!("a whole number from {} to {}", range.start().to_string(), range.end().to_string());
    let parse = move |raw: &Raw<'_>| T::try_from(raw.integer()?).ok().filter(|value| range.contains(value));
    Form::new(allowed, parse, ToString::to_string)
}

/// A whole number for which 0 means that there is no limit.
pub(super) fn limit<T>(most: T) -> Form<Option<T>>
where
    T: TryFrom<u64> + PartialOrd + ToString + Copy + Debug + 'static,
{
    let allowed = format!("a whole number up to {}; 0: no limit", most.to_string());
    let parse = move |raw: &Raw<'_>| match raw.integer()? {
        0 => Some(None),
        value => T::try_from(value).ok().filter(|value| *value <= most).map(Some),
    };
    Form::new(allowed, parse, |value| value.map_or_else(|| "0".to_owned(), |value| value.to_string()))
}

/// A number in a range.
pub(super) fn number(range: RangeInclusive<f64>) -> Form<f64> {
    let allowed = format!("a number from {:?} to {:?}", range.start(), range.end());
    Form::new(allowed, move |raw| raw.float().filter(|value| range.contains(value)), |value| format!("{value:?}"))
}

/// A duration in a range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Form<Duration> {
    let bounds = match (*range.start(), *range.end()) {
        (least, CENTURY) if least.is_zero() => String::new(),
        (least, CENTURY) => format!(" of at least {}", show_duration(least)),
        (least, most) => format!(" from {} to {}", show_duration(least), show_duration(most)),
    };
    let allowed = format!("a duration{bounds}, such as \"90s\", \"500ms\" or \"1h 30m\"");
    Form::new(
        allowed,
        move |raw| parse_duration(raw).filter(|value| range.contains(value)),
        |value| quote(&show_duration(*value)),
    )
}

/// A duration of at least a second, or `0s`, which turns something off.
pub(super) fn period() -> Form<Duration> {
    let allowed = "a duration of at least 1s, such as \"5m\" or \"1h 30m\"; \"0s\" turns it off";
    let fits = |value: &Duration| value.is_zero() || (SECOND..=CENTURY).contains(value);
    Form::new(allowed, move |raw| parse_duration(raw).filter(fits), |value| quote(&show_duration(*value)))
}

/// A size in bytes, in a range.
pub(super) fn size(range: RangeInclusive<u64>) -> Form<u64> {
    let bounds = match (*range.start(), *range.end()) {
        (0, most) if most > i64::MAX as u64 => String::new(),
        (least, most) => format!(" from {} to {}", show_size(least), show_size(most)),
    };
    let allowed = format!("a size{bounds}, such as \"64MiB\", \"8KiB\", \"1GB\" or a number of bytes");
    let parse = move |raw: &Raw<'_>| {
        let bytes = raw.integer().or_else(|| parse_size(&raw.text()?))?;
        Some(bytes).filter(|bytes| range.contains(bytes))
    };
    Form::new(allowed, parse, |bytes| quote(&show_size(*bytes)))
}

/// A size in bytes, of which 0 means that there is no limit.
pub(super) fn size_limit() -> Form<Option<u64>> {
    let Form { allowed, parse, .. } = size(0..=u64::MAX);
    let show = |most: &Option<u64>| quote(&show_size(most.unwrap_or(0)));
    Form::new(
        format!("{allowed}; \"0B\": no limit"),
        move |raw| Some(parse(raw)?).map(|bytes| (bytes > 0).then_some(bytes)),
        show,
    )
}

/// Permission bits of a file that its owner reads and writes, that nobody executes and strangers never write.
pub(super) fn mode() -> Form<u32> {
    let parse = |raw: &Raw<'_>| {
        let octal = |text: &String| (3..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
        let text = raw.text().filter(octal)?;
        let bits = u32::from_str_radix(&text, 8).ok()?;
        (bits & 0o600 == 0o600 && bits & !0o664 == 0).then_some(bits)
    };
    let allowed = "permission bits in octal, in quotes, such as \"0600\", \"0640\" or \"0660\"";
    Form::new(allowed, parse, |bits| quote(&format!("{bits:04o}")))
}

/// One of some words.
pub(super) fn choice<T: Copy + PartialEq + 'static>(words: &'static [(&'static str, T)]) -> Form<T> {
    let allowed: Vec<String> = words.iter().map(|(word, _)| quote(word)).collect();
    let parse = |raw: &Raw<'_>| {
        let text = raw.text()?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    };
    let show = |value: &T| quote(words.iter().find(|(_, candidate)| candidate == value).map_or("", |(word, _)| *word));
    Form::new(allowed.join(", "), parse, show)
}

/// A text that passes a test; `allowed` describes it.
pub(super) fn text(allowed: impl Into<String>, passes: impl Fn(&str) -> bool + 'static) -> Form<String> {
    Form::new(allowed, move |raw| raw.text().filter(|text| passes(text)), |text| quote(text))
}

/// The path of a file or folder; whether it has to be absolute is a matter of the key.
pub(super) fn path(allowed: &'static str, passes: fn(&std::path::Path) -> bool) -> Form<PathBuf> {
    let parse = move |raw: &Raw<'_>| {
        let text = raw.text().filter(|text| !text.is_empty() && !text.contains('\0'))?;
        Some(PathBuf::from(text)).filter(|path| passes(path))
    };
    Form::new(allowed, parse, |path| quote(&path.to_string_lossy()))
}

/// An absolute path, or nothing.
pub(super) fn optional_path(allowed: &'static str) -> Form<Option<PathBuf>> {
    let inner = path(allowed, std::path::Path::is_absolute);
    let parse = move |raw: &Raw<'_>| match raw.text()?.as_str() {
        "" => Some(None),
        _ => (inner.parse)(raw).map(Some),
    };
    let show = |path: &Option<PathBuf>| quote(&path.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default());
    Form::new(allowed, parse, show)
}

/// A list in which every item has a form of its own.
pub(super) fn list<T: 'static>(allowed: impl Into<String>, item: Form<T>) -> Form<Vec<T>> {
    let Form { parse, show, .. } = item;
    let parse_all = move |raw: &Raw<'_>| {
        let items = raw.list()?;
        items.iter().map(|item| parse(&Raw { kind: &item.kind, loose: raw.loose })).collect()
    };
    let show_all = move |items: &Vec<T>| format!("[{}]", items.iter().map(&show).collect::<Vec<_>>().join(", "));
    Form::new(allowed, parse_all, show_all)
}

fn parse_duration(raw: &Raw<'_>) -> Option<Duration> {
    humantime::parse_duration(raw.text()?.trim()).ok()
}

/// A size in bytes, as people write it: `64MiB`, `1500B`, `1500`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration in the units that a file would use: `1h 30m`. Unlike humantime's own, it knows no months.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let mut rest = nanos;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A size as it is written: in the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// A text as a TOML string, for people: without the passwords in its URLs.
pub(super) fn quote(text: &str) -> String {
    let text = without_passwords(text);
    // JSON's escapes are TOML's, except for DEL, which TOML wants escaped too.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Any value as TOML, for people; see [`quote`].
pub(super) fn toml(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "null".to_owned(),
        ValueKind::Boolean(value) => value.to_string(),
        ValueKind::I64(value) => value.to_string(),
        ValueKind::I128(value) => value.to_string(),
        ValueKind::U64(value) => value.to_string(),
        ValueKind::U128(value) => value.to_string(),
        ValueKind::Float(value) => format!("{value:?}"),
        ValueKind::String(text) => quote(text),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(|item| toml(&item.kind)).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries =
                entries.iter().map(|(key, value)| format!("{} = {}", super::layers::join("", key), toml(&value.kind)));
            let entries: Vec<String> = entries.collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict<T>(form: &Form<T>, kind: impl Into<ValueKind>) -> Option<T> {
        (form.parse)(&Raw { kind: &kind.into(), loose: false })
    }

    fn loose<T>(form: &Form<T>, text: &str) -> Option<T> {
        (form.parse)(&Raw { kind: &ValueKind::from(text), loose: true })
    }

    #[test]
    fn durations_are_read_and_written_in_the_same_units() {
        let form = duration(Duration::ZERO..=CENTURY);
        for text in ["0s", "500ms", "1h 30m", "7d", "90d", "1d 1h 1m 1s 1ms"] {
            assert_eq!(strict(&form, text).map(show_duration).as_deref(), Some(text));
        }
        for wrong in ["", "5", "-1s", "5 minuten", "1000000d"] {
            assert_eq!(strict(&form, wrong), None, "{wrong}");
        }
        assert_eq!(strict(&form, 5_i64), None, "a number has no unit");
    }

    #[test]
    fn bounds_hold_at_both_ends() {
        let form = duration(SECOND..=DAY);
        assert_eq!(strict(&form, "1s"), Some(SECOND));
        assert_eq!(strict(&form, "999ms"), None);
        assert_eq!(strict(&form, "1d"), Some(DAY));
        assert_eq!(strict(&form, "1d 1ns"), None);
        let form = integer(1..=64_u32);
        assert_eq!((strict(&form, 0_i64), strict(&form, 1_i64)), (None, Some(1)));
        assert_eq!((strict(&form, 64_i64), strict(&form, 65_i64)), (Some(64), None));
        assert_eq!(strict(&form, -1_i64), None);
        assert_eq!((strict(&period(), "0s"), strict(&period(), "1ms")), (Some(Duration::ZERO), None));
    }

    #[test]
    fn sizes_know_both_families_of_units() {
        let form = size(0..=u64::MAX);
        let cases = [("64MiB", 64 << 20), ("8KiB", 8 << 10), ("1GB", 1_000_000_000), ("5 kB", 5_000), ("7", 7)];
        for (text, bytes) in cases {
            assert_eq!(strict(&form, text), Some(bytes), "{text}");
        }
        assert_eq!(strict(&form, 4096_i64), Some(4096));
        for wrong in ["", "MiB", "1.5MiB", "99999999TiB", "1 parsec", "-1"] {
            assert_eq!(strict(&form, wrong), None, "{wrong}");
        }
        assert_eq!([show_size(0), show_size(8 << 10), show_size(1_500)], ["0B", "8KiB", "1500B"]);
    }

    #[test]
    fn modes_leave_the_owner_in_and_strangers_out() {
        for (text, bits) in [("0600", Some(0o600)), ("660", Some(0o660)), ("0644", Some(0o644))] {
            assert_eq!(strict(&mode(), text), bits);
        }
        for wrong in ["0666", "0700", "0060", "0888", "6", "1600", "+600"] {
            assert_eq!(strict(&mode(), wrong), None, "{wrong}");
        }
        assert_eq!(strict(&mode(), 600_i64), None);
    }

    #[test]
    fn only_the_environment_may_write_numbers_as_text() {
        let numbers = integer(0..=9_u32);
        assert_eq!((strict(&numbers, "4"), loose(&numbers, "4")), (None, Some(4)));
        assert_eq!((strict(&boolean(), "true"), loose(&boolean(), "true")), (None, Some(true)));
        let words = || list("words", text("a word", |_| true));
        assert_eq!(strict(&words(), "[\"a\"]"), None);
        assert_eq!(loose(&words(), "[\"a\", \"b\"]"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(loose(&words(), "['a\\b']"), Some(vec!["a\\b".to_owned()]), "a TOML array");
        assert_eq!(loose(&words(), "a, b"), None);
        assert_eq!(loose(&number(1.0..=9.0), "2.5"), Some(2.5));
    }

    #[test]
    fn quoted_text_is_toml() {
        assert_eq!(quote("a\"b\\\n\u{7f}"), "\"a\\\"b\\\\\\n\\u007f\"");
    }
}
