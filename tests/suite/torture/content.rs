//! Content that says itself whether it is whole: records, each with its length and the checksum of what follows.
//!
//! A file is whole when it consists of whole records, at least one. A file that was truncated, is being filled, or has
//! the middle of another version does not.

/// A record that no other equals: `name` says who wrote it and which one it is.
pub fn record(name: &str, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut body);
    let mut record = format!("{name} {length} {}\n", checksum(name, &body)).into_bytes();
    record.extend(body);
    record
}

/// Whether these bytes are whole records and nothing else.
pub fn is_whole(mut bytes: &[u8]) -> bool {
    let mut any = false;
    while !bytes.is_empty() {
        let Some(rest) = after_record(bytes) else { return false };
        bytes = rest;
        any = true;
    }
    any
}

fn after_record(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = header.split(' ');
    let (name, length, told) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let (body, rest) = bytes[end + 1..].split_at_checked(length)?;
    (checksum(name, body) == told).then_some(rest)
}

fn checksum(name: &str, body: &[u8]) -> String {
    blake3::Hasher::new().update(name.as_bytes()).update(body).finalize().to_hex().to_string()
}

#[test]
fn half_of_it_is_not_whole() {
    let two = [record("one", 100), record("two", 0)].concat();
    assert!(is_whole(&two) && is_whole(&record("one", 5)));
    let mut mixed = record("one", 100);
    mixed[150] ^= 1;
    let mut prepared = record("one", 100);
    prepared.resize(1_000, 0);
    let half = &two[..two.len() / 2];
    assert!(![half, &[], &mixed, &prepared, &two[1..]].into_iter().any(is_whole));
}
