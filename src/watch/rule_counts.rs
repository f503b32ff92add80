//! How many entries each rule leaves alone, as a scan counts them.

use std::collections::HashMap;

use super::filter::Rule;

/// Rules that are counted each by itself: a watch has a few, but ignore files may have any number of lines.
const LIMIT: usize = 64;
/// What the others are called together.
const OTHERS: &str = "other lines of ignore files";

/// Counts by rule, of which there may be any number.
#[derive(Clone, Debug, Default)]
pub struct RuleCounts {
    counts: HashMap<Rule, u64>,
    others: u64,
}

impl RuleCounts {
    /// One more entry. A rule that was met before costs no memory.
    pub fn add(&mut self, rule: &Rule) {
        if let Some(count) = self.counts.get_mut(rule) {
            *count += 1;
        } else if self.counts.len() < LIMIT {
            self.counts.insert(rule.clone(), 1);
        } else {
            self.others += 1;
        }
    }

    /// In words, the most frequent rule first.
    pub fn in_words(&self) -> Vec<(String, u64)> {
        let mut words: Vec<(String, u64)> =
            self.counts.iter().map(|(rule, count)| (rule.to_string(), *count)).collect();
        words.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        words.extend((self.others > 0).then(|| (OTHERS.to_owned(), self.others)));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_rule_comes_first_and_there_is_an_end_to_rules() {
        let mut counts = RuleCounts::default();
        for _ in 0..3 {
            counts.add(&Rule::Link);
        }
        for line in 0..1_000 {
            counts.add(&Rule::IgnoreFile { file: ".gitignore".into(), pattern: line.to_string() });
        }
        let words = counts.in_words();
        assert_eq!(words.len(), LIMIT + 1);
        assert_eq!(words.first(), Some(&(Rule::Link.to_string(), 3)));
        assert_eq!(words.last(), Some(&(OTHERS.to_owned(), 1_000 - (LIMIT as u64 - 1))));
        assert_eq!(words.iter().map(|(_, count)| count).sum::<u64>(), 1_003);
    }
}
