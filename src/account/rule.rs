//! Where the rule stands that keeps a file of a watch from being taken: the key of the watch's section, and for a list
//! the item.

use crate::config::Watch;
use crate::watch::Rule;

/// The key of `[watch.NAME]` that a rule comes from, and the item of its list; `None`: the rule is built in, or stands in
/// a file of its own.
pub fn key(rule: &Rule, watch: &Watch) -> Option<(&'static str, Option<usize>)> {
    match rule {
        Rule::Exclude(glob) => Some(("exclude", watch.exclude.iter().position(|other| other == glob))),
        Rule::NotIncluded => Some(("include", None)),
        Rule::NotRecursive => Some(("recursive", None)),
        Rule::TooDeep(_) => Some(("max_depth", None)),
        Rule::TooSmall(_) => Some(("min_size", None)),
        Rule::TooLarge(_) => Some(("max_size", None)),
        Rule::IgnoreFile { .. } => None,
        Rule::Companion(_) | Rule::NotReady(_) => Some(("ready_suffix", None)),
        Rule::Link => Some(("follow_symlinks", None)),
        Rule::Private | Rule::StateDirectory | Rule::Special | Rule::LinkOut | Rule::LinkLoop => None,
    }
}

/// The line of an ignore file that this pattern is, from 1: the last of equal ones, because the last match counts.
pub fn line_of(pattern: &str, text: &[u8]) -> Option<usize> {
    let lines = text.split(|byte| *byte == b'\n');
    let same = |line: &[u8]| String::from_utf8_lossy(line).trim_end() == pattern.trim_end();
    lines.enumerate().filter(|(_, line)| same(line)).last().map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn an_excluding_glob_is_found_in_its_list() {
        let mut watch = Watch::of(PathBuf::from("/srv"), "p".to_owned());
        watch.exclude = vec!["**/.*".to_owned(), "*.tmp".to_owned()];
        assert_eq!(key(&Rule::Exclude("*.tmp".to_owned()), &watch), Some(("exclude", Some(1))));
        assert_eq!(key(&Rule::NotReady(".done".to_owned()), &watch), Some(("ready_suffix", None)));
        assert_eq!(key(&Rule::Special, &watch), None);
    }

    #[test]
    fn the_last_of_equal_patterns_counts() {
        let text = b"# \xff\n*.log\n!keep.log\r\n*.log  \n";
        assert_eq!(line_of("*.log", text), Some(4));
        assert_eq!(line_of("!keep.log", text), Some(3));
        assert_eq!(line_of("*.tmp", text), None);
    }
}
