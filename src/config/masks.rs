//! What is not shown of values that were written literally: those whose name says that they are secret, and passwords
//! in URLs. It is a help and no promise, because a name need not tell; what `${…}` puts in is never shown at all.

use super::secrets::split_reference;

/// What stands in for a secret, or for a part of one.
const MASK: &str = "***";

/// These tell wherever they stand in a name; separators are left out of it (`API-Key`, `api_key`, `apiKey`).
const TELLING: [&str; 12] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "credential",
    "private",
    "apikey",
];
/// These tell as a word of their own. A `key` may be one to sort by, but more often it opens something.
const TELLING_WORDS: [&str; 7] = ["key", "auth", "pw", "cred", "creds", "bearer", "jwt"];
/// A word that ends in `pass` tells (`PASS`, `DBPASS`, `smtp_pass`), but for these.
const NO_PASSWORDS: [&str; 4] = ["bypass", "compass", "trespass", "surpass"];

/// Whether a header, variable or key of this name holds a secret, as far as a name can tell.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let whole: String = words().collect();
    TELLING.iter().any(|part| whole.contains(part))
        || words().any(|word| TELLING_WORDS.contains(&word))
        || words().any(|word| word.ends_with("pass") && !NO_PASSWORDS.iter().any(|other| word.ends_with(other)))
}

/// The text without the passwords in its URLs: `https://user:***@example.org/`. A user alone is often a token in
/// `http`, and goes too. What consists of references only is no secret yet, and stays.
pub(super) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let web = before.ends_with("http://") || before.ends_with("https://");
        let word = &after[..position(after, |c| c.is_whitespace() || c == '"').unwrap_or(after.len())];
        let length = user_part(word).unwrap_or(0);
        shown.push_str(&masked(&word[..length], web));
        rest = &after[length..];
    }
    shown.push_str(rest);
    shown
}

/// How long the user part is, up to its `@`; `None` where there is none.
fn user_part(address: &str) -> Option<usize> {
    let end = position(address, |c| matches!(c, '/' | '?' | '#' | '\\')).unwrap_or(address.len());
    if let Some(at) = last_position(&address[..end], '@') {
        return Some(at);
    }
    // A `/` in a password has to be written `%2F`. Where that was forgotten, what follows the colon is no port.
    let (host, port) = address[..end].split_at(position(&address[..end], |c| c == ':')?);
    let forgotten = !host.starts_with('[') && port.len() > 1 && !is_port(&port[1..]);
    last_position(address, '@').filter(|_| forgotten)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) || only_references(text)
}

fn masked(user: &str, web: bool) -> String {
    let hidden = |secret: &str| if only_references(secret) { secret.to_owned() } else { MASK.to_owned() };
    match position(user, |c| c == ':').map(|at| (&user[..at], &user[at + 1..])) {
        Some((user, "")) if web => format!("{}:", hidden(user)),
        Some((user, password)) => format!("{user}:{}", hidden(password)),
        None if web => hidden(user),
        None => user.to_owned(),
    }
}

fn only_references(text: &str) -> bool {
    position(text, |_| true).is_none()
}

/// Where the first such character stands outside of every `${…}`.
fn position(text: &str, wanted: impl Fn(char) -> bool) -> Option<usize> {
    positions(text).find(|(_, c)| wanted(*c)).map(|(at, _)| at)
}

fn last_position(text: &str, wanted: char) -> Option<usize> {
    positions(text).filter(|(_, c)| *c == wanted).last().map(|(at, _)| at)
}

/// The characters outside of every `${…}`, and where they stand.
fn positions(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        // Two dollars are a literal `${`.
        while let Some((_, after)) = text[at..].strip_prefix("${").and_then(split_reference)
            && !text[..at].ends_with('$')
        {
            at = text.len() - after.len();
        }
        let c = text[at..].chars().next()?;
        at += c.len_utf8();
        Some((at - c.len_utf8(), c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_tell_of_a_secret_are_known() {
        let telling = "PASS DB_PASS DBPASS smtp-pass PGPASSWORD passwd PASSPHRASE PWD MYSQL_PWD pw Authorization \
                       Proxy-Authorization Cookie X-Auth API_TOKEN X-Api-Key apiKey SSH_KEY private_key PrivateKey \
                       AWS_CREDENTIALS credential client.secret BASIC_AUTH X-JWT";
        for name in telling.split(' ') {
            assert!(names_a_secret(name), "{name}");
        }
        let others = "bypass_cache BYPASS COMPASS_URL passive PASSENGERS X-Passthrough PATH LANG KEYBOARD MONKEY AUTHOR \
                      Content-Type X-Forwarded-For power credits url";
        for name in others.split(' ') {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn passwords_in_urls_are_masked_wherever_they_stand() {
        for (written, shown) in [
            ("https://user:PASSW0RD@example.org/in", "https://user:***@example.org/in"),
            ("https://user:p@ss:w@example.org:8080/a@b", "https://user:***@example.org:8080/a@b"),
            ("curl postgres://u:pw@db/x https://u:pw@h/", "curl postgres://u:***@db/x https://u:***@h/"),
            ("https://ghp_token@example.org/", "https://***@example.org/"),
            ("https://sk_live:@example.org/", "https://***:@example.org/"),
            ("https://:pw@example.org/", "https://:***@example.org/"),
            ("https://user:pa/ss#w@example.org/in", "https://user:***@example.org/in"),
            ("https://user:${PW}@example.org/", "https://user:${PW}@example.org/"),
            ("https://${USER}:${file:/run/a@b}@example.org/", "https://${USER}:${file:/run/a@b}@example.org/"),
            ("https://user:lit${file:${D}/pw}eral@example.org/", "https://user:***@example.org/"),
            ("https://user:$${x@example.org/", "https://user:***@example.org/"),
            ("https://${USER}@example.org/", "https://${USER}@example.org/"),
        ] {
            assert_eq!(without_passwords(written), shown, "{written}");
        }
    }

    #[test]
    fn addresses_without_a_password_are_shown_as_they_are() {
        for text in [
            "https://example.org/users/me:x@example.com?mail=a:b@c",
            "http://host:8080/a:b@c",
            "http://[::1]:80/a@b",
            "http://host:${PORT}/a@b",
            "ssh://git@example.org/repo",
            "sqlite:///srv/a:b@c/q.db",
            "http://host: and a@b",
            "a@b ://",
            "${unclosed https://",
            "://ü@",
            "",
        ] {
            assert_eq!(without_passwords(text), text);
        }
    }
}
